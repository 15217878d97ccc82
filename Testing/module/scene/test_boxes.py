"""One ROI for the box: the user's drags come back as pixels, whatever else happened to it."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from geometries import linear, warp

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.scene.boxes import boxNode, readBox, setEditable, showBox, watchBox

OBLIQUE = np.array([[-0.56, 0.48, 0, 30], [0.42, 0.64, 0, -80], [0, 0, 2.5, 600], [0, 0, 0, 1]])  # left-handed
SHAPE = (6, 20, 30)


@pytest.fixture
def case(makeVolume):
    volume = makeVolume(SHAPE, OBLIQUE)
    return volume, boxNode(volume)


def drag(roi, shift) -> None:
    """Move the ROI by mm along its own axes, as a translation handle does."""
    matrix = slicer.util.arrayFromVTKMatrix(roi.GetObjectToNodeMatrix()).copy()
    matrix[:3, 3] += matrix[:3, :3] @ shift
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))


def test_there_is_one_node_seen_in_the_red_view_only(scene, case):
    volume, roi = case
    assert boxNode(volume) is roi
    for k in range(6):
        showBox(roi, volume, k, (1, 2, 3, 4))
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 1
    display = roi.GetDisplayNode()
    assert display.GetViewNodeIDs() == ("vtkMRMLSliceNodeRed",) and display.GetVisibility()
    showBox(roi, volume, 2, None)
    assert not display.GetVisibility()
    assert roi.GetNumberOfControlPoints() == 1


def test_handles_are_there_only_while_the_user_edits(case):
    _, roi = case
    display = roi.GetDisplayNode()
    assert roi.GetLocked() and not display.GetHandlesInteractive()
    setEditable(roi, True)
    assert not roi.GetLocked() and display.GetHandlesInteractive() and not display.GetRotationHandleVisibility()


def test_a_drag_is_rounded_to_whole_pixels(case):
    volume, roi = case
    showBox(roi, volume, 3, (5, 6, 10, 12))
    drag(roi, [2.4 * 0.7, -1.6 * 0.8, 0.3])
    assert readBox(roi, volume) == (3, (7, 4, 12, 10))
    showBox(roi, volume, 3, (5, 6, 10, 12))
    width, height, depth = roi.GetSize()
    roi.SetSize(width + 4 * 0.7, height, depth)
    assert readBox(roi, volume) == (3, (3, 6, 12, 12))


def test_a_box_stays_in_the_volume_and_holds_a_pixel(case):
    volume, roi = case
    showBox(roi, volume, 5, (5, 6, 10, 12))
    drag(roi, [-6.0, 100.0, 50.0])
    k, (i0, j0, i1, j1) = readBox(roi, volume)
    assert (k, i0, j0, j1) == (5, 0, 19, 19) and i1 < 10
    roi.SetSize(0.01, 0.01, 0.01)
    _, (i0, j0, i1, j1) = readBox(roi, volume)
    assert i0 <= i1 and j0 <= j1


def test_a_transform_put_on_the_box_alone_counts(case):
    volume, roi = case
    showBox(roi, volume, 3, (5, 6, 10, 12))
    shift = np.eye(4)
    shift[:3, 3] = OBLIQUE[:3, 0] * 2 + OBLIQUE[:3, 1] * 3
    moved = linear(shift)
    expected = readBox(roi, volume)
    roi.SetAndObserveTransformNodeID(moved.GetID())
    k, box = readBox(roi, volume)
    assert k == 3 and sorted(np.abs(np.subtract(box, expected[1]))) == [2, 2, 3, 3]
    roi.SetAndObserveTransformNodeID(warp().GetID())
    with pytest.raises(SAMMixError, match="non-linear"):
        readBox(roi, volume)


def test_only_the_end_of_a_drag_calls_back(case):
    volume, roi = case
    seen = []
    watch = watchBox(roi, volume, lambda *found: seen.append(found))
    showBox(roi, volume, 3, (5, 6, 10, 12))
    assert seen == []
    roi.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)
    assert seen == [(3, (5, 6, 10, 12))]
    watch.stop()
    roi.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)
    assert len(seen) == 1
