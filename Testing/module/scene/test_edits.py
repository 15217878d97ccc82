"""Manual corrections are seen by slice, also after the scene was saved and read again."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from SAMMixLib.module.scene.edits import editedSlices, rememberResult
from SAMMixLib.module.scene.geometry import toStack
from SAMMixLib.module.scene.segments import createSegmentation, findSegment, readSegment, writeSegment

SHAPE = (6, 8, 10)
MATRICES = {"axial": np.diag([-0.7, -0.8, 2.5, 1.0]), "feet first": np.diag([-0.7, -0.8, -2.5, 1.0])}


@pytest.fixture(params=MATRICES)
def case(makeVolume, request):
    volume = makeVolume(SHAPE, MATRICES[request.param])
    mask = np.random.default_rng(1).random(SHAPE) < 0.3
    toStack(mask, volume)[0] = False
    node = createSegmentation(volume)
    writeSegment(mask, volume, node)
    rememberResult(node, volume)
    return volume, node, mask


def edit(volume, node, k: int, value: bool) -> None:
    """As the Segment Editor does it, with another tool than ours."""
    array = readSegment(node, volume).copy()
    toStack(array, volume)[k] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, findSegment(node), volume)


def test_only_slices_that_the_user_changed_are_edits(case):
    volume, node, _ = case
    assert editedSlices(node, volume) == []
    edit(volume, node, 4, False)
    edit(volume, node, 0, True)
    assert editedSlices(node, volume) == [0, 4]


def test_a_new_run_can_keep_the_edits_or_replace_them(case):
    volume, node, mask = case
    edit(volume, node, 2, True)
    kept = [k for k in range(SHAPE[0]) if k not in editedSlices(node, volume)]
    writeSegment(~mask, volume, node, kept)
    rememberResult(node, volume, kept)
    liver = toStack(readSegment(node, volume), volume)
    assert liver[2].all() and np.array_equal(liver[3], toStack(~mask, volume)[3])
    assert editedSlices(node, volume) == [2]  # still the user's, at the next run too
    writeSegment(mask, volume, node)
    rememberResult(node, volume)
    assert editedSlices(node, volume) == [] and np.array_equal(readSegment(node, volume), mask)


def test_a_correction_counts_as_the_users(case):
    volume, node, mask = case
    writeSegment(~mask, volume, node, [3])
    assert editedSlices(node, volume) == [3]


def test_a_liver_that_is_not_ours_is_the_users_in_every_slice_that_holds_it(case):
    volume, node, _ = case
    node.GetSegmentation().GetSegment(findSegment(node)).RemoveTag("SAMMix.result")
    assert editedSlices(node, volume) == [1, 2, 3, 4, 5]
    assert editedSlices(createSegmentation(volume), volume) == []


def test_undo_takes_the_memory_of_a_result_back_with_it(case, scene):
    volume, node, mask = case
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetAndObserveSegmentationNode(node)
    editor.SetAndObserveSourceVolumeNode(volume)
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(scene)
    logic.SetSegmentEditorNode(editor)
    edit(volume, node, 1, True)
    logic.SaveStateForUndo()
    writeSegment(~mask, volume, node)
    rememberResult(node, volume)
    logic.Undo()
    assert editedSlices(node, volume) == [1]
