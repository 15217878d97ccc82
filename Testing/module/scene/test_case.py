"""What a session asks of a case: writing results and corrections, and counting no more than it must."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.scene import case as case_module
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.geometry import toStack
from SAMMixLib.module.scene.segments import readSegment
from SAMMixLib.module.scene.volume import exportVolume

SAGITTAL = np.array([[0, 0, 2.5, 5], [0.8, 0, 0, -7], [0, -0.7, 0, 9], [0, 0, 0, 1.0]])  # j runs downwards


@pytest.fixture(params=["axial", "sagittal"])
def case(makeVolume, request) -> Case:
    return Case(makeVolume((6, 8, 10), SAGITTAL if request.param == "sagittal" else None))


def whole(case: Case, folder, mask: np.ndarray):
    """The file of a whole result, mask [z, y, x]."""
    list(exportVolume(case.volumeNode, folder / "ct.nrrd"))
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.CopyInformation(sitk.ReadImage(str(folder / "ct.nrrd")))
    sitk.WriteImage(image, str(folder / "mask.nrrd"))
    return folder / "mask.nrrd"


def done(steps):
    """The value of a generator that is run to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_corrections_file_holds_its_slices_and_nothing_else_changes(case, tmp_path):
    mask = np.random.default_rng(1).random((6, 8, 10)) > 0.5
    assert done(case.write(whole(case, tmp_path, mask), None)) is True
    stack = toStack(mask, case.volumeNode).copy()
    ks = [1, 4]
    stack[ks] = ~stack[ks]
    file = tmp_path / "slices.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(stack[ks].astype(np.uint8)), str(file))
    assert done(case.write_slices(file, ks)) is True
    found = readSegment(case.segmentationNode, case.volumeNode)
    assert np.array_equal(toStack(found, case.volumeNode), stack)
    assert case.edited_slices() == ks and case.drawn_slices() == []

    with pytest.raises(SAMMixError, match="grid has changed"):
        done(case.write_slices(file, [1]))
    file.write_bytes(b"no image")
    with pytest.raises(SAMMixError, match="cannot be read"):
        done(case.write_slices(file, ks))


def test_areas_are_counted_only_when_the_voxels_have_changed(case, tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(case_module, "readSegment", lambda *args: counted.append(1) or readSegment(*args))
    assert case.areas() == [0.0] * case.size()[0]
    mask = np.ones((6, 8, 10), bool)
    done(case.write(whole(case, tmp_path, mask), None))
    before = case.areas()
    assert all(before) and case.areas() == before and len(counted) == 1
    case.take_areas([1.0] * len(before))
    assert case.areas() == [1.0] * len(before) and len(counted) == 1

    segment = case.segmentationNode.GetSegmentation().GetNthSegment(0)
    image = segment.GetRepresentation("Binary labelmap")
    image.GetPointData().GetScalars().Fill(0)  # the user erases it all
    image.Modified()
    assert case.areas() == [0.0] * len(before) and len(counted) == 2


def test_a_result_that_meets_a_neighbour_is_not_the_files(case, tmp_path):
    mask = np.zeros((6, 8, 10), bool)
    mask[:3] = True
    done(case.write(whole(case, tmp_path, mask), None))
    segmentation = case.segmentationNode.GetSegmentation()
    segmentation.GetNthSegment(0).SetTerminology("")  # another's segment from now on
    assert done(case.write(whole(case, tmp_path, np.ones((6, 8, 10), bool)), None)) is False
    assert readSegment(case.segmentationNode, case.volumeNode).sum() == 3 * 8 * 10


def test_a_volume_that_was_removed_is_not_present(case):
    assert case.present
    slicer.mrmlScene.RemoveNode(case.volumeNode)
    assert not case.present
