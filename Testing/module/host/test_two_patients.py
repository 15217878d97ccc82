"""Two scans in one scene: no liver of one patient is written over another's, and each keeps its own figures."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from slicerhost.desktop import click, pick

from SAMMixLib.module.scene.segments import readSegment
from SAMMixLib.module.session.session import State


@pytest.fixture
def second(phantom, tmp_path):
    """Another patient: the phantom, two slices shorter and 40 mm further up."""
    image = sitk.ReadImage(str(phantom[0]))[:, :, 2:]
    image.SetOrigin(np.add(image.GetOrigin(), (0, 0, 40)).tolist())
    sitk.WriteImage(image, str(tmp_path / "second.nrrd"))
    return tmp_path / "second.nrrd"


def liver_of(case) -> np.ndarray:
    return readSegment(case.segmentationNode, case.volumeNode).copy()


def test_the_second_scan_gets_a_segmentation_of_its_own(clinic, phantom, second):
    first = clinic.load(phantom[0])
    clinic.segment()
    one = clinic.tab.case.segmentationNode
    clinic.paint(2)
    liver, said = liver_of(clinic.tab.case), clinic.ui.resultLabel.text
    clinic.load(second)
    assert clinic.tab.case.segmentationNode is None and not clinic.ui.resultLabel.visible
    assert not one.GetDisplayVisibility(), "it does not lie over the other patient's scan"
    clinic.segment()
    assert not clinic.session.error and not clinic.desktop.dialogs
    assert clinic.tab.case.segmentationNode is not one
    assert np.array_equal(readSegment(one, first), liver)
    assert one.GetNodeReference(one.GetReferenceImageGeometryReferenceRole()) is first
    two = clinic.tab.case.segmentationNode
    pick(clinic.ui.volumeSelector, first)
    assert clinic.tab.case.segmentationNode is one and one.GetDisplayVisibility() and not two.GetDisplayVisibility()
    clinic.wait(lambda: "slices 2 to" in clinic.ui.resultLabel.text, 5)  # with what was painted
    assert clinic.ui.resultLabel.text != said


def test_a_segmentation_of_another_scan_is_only_written_after_a_question(clinic, phantom, second):
    clinic.load(phantom[0])
    clinic.segment()
    case = clinic.tab.case
    one, liver = case.segmentationNode, liver_of(case)
    clinic.load(second)
    pick(clinic.ui.segmentationSelector, one)  # the user insists
    assert clinic.tab.case.segmentationNode is one
    clinic.desktop.answer = "Cancel"
    clinic.segment()
    assert clinic.desktop.choices == ["New segmentation", "Replace", "Cancel"]
    assert np.array_equal(readSegment(one, case.volumeNode), liver)
    clinic.desktop.answer = "New segmentation"
    clinic.segment()
    assert clinic.tab.case.segmentationNode is not one
    assert np.array_equal(readSegment(one, case.volumeNode), liver)


def test_what_was_found_belongs_to_what_the_segment_holds(clinic, phantom, second):
    first = clinic.load(phantom[0])
    clinic.segment()
    one = clinic.tab.case.segmentationNode
    pick(clinic.ui.segmentationSelector, None)  # create a new segmentation
    assert clinic.tab.case.segmentationNode is None and not clinic.ui.resultLabel.visible
    clinic.load(second)
    pick(clinic.ui.volumeSelector, first)
    assert clinic.tab.case.segmentationNode is one and clinic.ui.resultLabel.text.startswith("Liver ")
    one.GetSegmentation().RemoveSegment(one.GetSegmentation().GetSegmentIDs()[0])
    clinic.wait(lambda: not clinic.ui.resultLabel.visible, 5)


def test_each_scan_comes_back_at_the_slice_where_it_was_left(clinic, phantom, second):
    first = clinic.load(phantom[0])
    middle = clinic.tab.case.current_slice()
    clinic.tab.case.jump(4)
    other = clinic.load(second)
    clinic.tab.case.jump(9)
    assert middle not in (4, 9)
    for volume, k in ((first, 4), (other, 9), (first, 4)):
        pick(clinic.ui.volumeSelector, volume)
        assert clinic.tab.case.current_slice() == k


def test_after_the_chosen_scan_is_removed_the_other_one_is_shown_with_its_own_liver(clinic, phantom, second):
    first = clinic.load(phantom[0])
    clinic.segment()
    one = clinic.tab.case.segmentationNode
    clinic.load(second)
    clinic.segment()
    two, removed = clinic.tab.case.segmentationNode, clinic.tab.case.volumeNode
    clinic.desktop.enter_module(clinic.widget, False)
    slicer.mrmlScene.RemoveNode(removed)
    clinic.view.SetBackgroundVolumeID(first.GetID())  # as the application does, without a look at where it lies
    clinic.desktop.enter_module(clinic.widget)
    clinic.wait(lambda: clinic.tab.case is not None and clinic.tab.case.volumeNode is first, 5)
    assert one.GetDisplayVisibility() and not two.GetDisplayVisibility()
    assert clinic.tab.case.current_slice() is not None, "the views come to where the scan is"


def test_what_a_run_has_written_is_seen(clinic, phantom):
    clinic.load(phantom[0])
    clinic.segment()
    clinic.tab.case.segmentationNode.SetDisplayVisibility(False)
    clinic.segment()
    assert clinic.tab.case.segmentationNode.GetDisplayVisibility()


def test_a_run_that_ended_while_another_module_was_open_is_still_told_of(clinic, phantom, second):
    volume = clinic.load(phantom[0])
    clinic.load(second)
    pick(clinic.ui.volumeSelector, volume)
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING)
    clinic.desktop.enter_module(clinic.widget, False)
    slicer.mrmlScene.RemoveNode(volume)
    clinic.wait(lambda: not clinic.session.busy, 10)
    clinic.desktop.enter_module(clinic.widget)
    clinic.wait(lambda: clinic.tab.case is not None, 5)
    assert "was removed" in clinic.ui.statusLabel.text


def test_switched_ten_times_saved_and_reloaded_each_keeps_its_own(clinic, phantom, second, tmp_path):
    kept = {}
    for path in (phantom[0], second):
        volume = clinic.load(path)
        clinic.segment()
        k = int(np.argmax(clinic.tab.case.areas()))
        clinic.tab.case.jump(k)
        click(clinic.ui.noLiverButton)
        clinic.wait(lambda: not clinic.session.busy)
        clinic.paint(1)
        clinic.wait(lambda: "slices 1 to" in clinic.ui.resultLabel.text, 5)
        kept[volume.GetName()] = (liver_of(clinic.tab.case), clinic.ui.resultLabel.text,
                                  clinic.tab.case.edited_slices())  # fmt: skip

    def check(volume) -> None:
        liver, said, edited = kept[volume.GetName()]
        assert clinic.tab.case.volumeNode is volume and np.array_equal(liver_of(clinic.tab.case), liver)
        clinic.wait(lambda: clinic.ui.resultLabel.text == said, 5)
        assert "2 corrected" in said  # a click and a stroke
        assert clinic.tab.case.edited_slices() == edited and len(edited) == 2

    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    volumes = [each for each in volumes if each.GetName() in kept]
    for _ in range(10):
        for volume in volumes:
            pick(clinic.ui.volumeSelector, volume)
            check(volume)
    clinic.reload(tmp_path)
    clinic.desktop.app.processEvents()
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        pick(clinic.ui.volumeSelector, volume)
        check(volume)


def test_what_was_said_of_one_scan_is_not_said_of_the_next(clinic, phantom, second):
    volume = clinic.load(phantom[0])
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING)
    slicer.mrmlScene.RemoveNode(volume)
    clinic.wait(lambda: not clinic.session.busy, 10)
    places = (clinic.ui.statusLabel, clinic.ui.hintLabel, clinic.ui.collectLabel)
    assert all("was removed" in label.text for label in places)
    clinic.load(second)
    clinic.tab.update()
    assert not any("was removed" in label.text for label in places)


def test_a_scan_that_comes_during_a_run_is_not_drawn_over_and_chosen_after_it(clinic, phantom, second):
    clinic.load(phantom[0])
    clinic.segment()
    assert clinic.view.GetForegroundVolumeID()
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING)
    other = slicer.util.loadVolume(str(second))
    clinic.wait(lambda: not clinic.view.GetForegroundVolumeID(), 5)
    assert clinic.session.busy and clinic.tab.case.volumeNode is not other
    assert clinic.view.GetBackgroundVolumeID() == other.GetID()
    clinic.wait(lambda: not clinic.session.busy)
    clinic.wait(lambda: clinic.tab.case.volumeNode is other, 5)
    assert not clinic.ui.resultLabel.visible and not clinic.view.GetForegroundVolumeID()
