"""Two scans in one scene: no liver of one patient is written over another's."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import SimpleITK as sitk
from slicerhost.desktop import click

from SAMMixLib.module.scene.segments import readSegment


@pytest.fixture
def second(phantom, tmp_path):
    """Another patient: the phantom, two slices shorter and 40 mm further up."""
    image = sitk.ReadImage(str(phantom[0]))[:, :, 2:]
    image.SetOrigin(np.add(image.GetOrigin(), (0, 0, 40)).tolist())
    sitk.WriteImage(image, str(tmp_path / "second.nrrd"))
    return tmp_path / "second.nrrd"


def test_the_second_scan_gets_a_segmentation_of_its_own(clinic, phantom, second):
    first = clinic.load(phantom[0])
    clinic.segment()
    one = clinic.tab.case.segmentationNode
    clinic.paint(2)
    liver = readSegment(one, first).copy()
    other = clinic.load(second)
    assert clinic.tab.case.segmentationNode is None
    clinic.segment()
    two = clinic.tab.case.segmentationNode
    assert not clinic.session.error and two is not None and two is not one
    assert np.array_equal(readSegment(one, first), liver)
    assert one.GetNodeReference(one.GetReferenceImageGeometryReferenceRole()) is first
    for _ in range(5):
        for volume, segmentation in ((first, one), (other, two)):
            clinic.ui.volumeSelector.setCurrentNode(volume)
            gc.collect()
            assert clinic.tab.case.segmentationNode is segmentation
    assert np.array_equal(readSegment(one, first), liver)


def test_a_segmentation_of_another_scan_is_written_after_a_question_only(clinic, phantom, second):
    first = clinic.load(phantom[0])
    clinic.segment()
    one = clinic.tab.case.segmentationNode
    liver = readSegment(one, first).copy()
    clinic.load(second)
    clinic.ui.segmentationSelector.setCurrentNode(one)  # the user insists
    clinic.desktop.dialogs.clear()
    clinic.desktop.answer = False
    click(clinic.ui.segmentButton)
    assert "was made on" in clinic.desktop.dialogs[-1][1] and not clinic.session.busy
    assert np.array_equal(readSegment(one, first), liver)


def test_deleting_a_model_leaves_the_table_whole(clinic):
    """The selection changes while the table is filled."""
    from SAMMixLib.models.registry import import_model, remove_model
    from SAMMixLib.paths import starter_folder

    import_model(starter_folder(), "mine")
    clinic.widget.modelsTab.refresh()
    clinic.ui.modelsTable.selectRow(1)
    remove_model("mine")
    clinic.widget.modelsTab.refresh()
    assert clinic.ui.modelsTable.rowCount == 1 and clinic.ui.modelLabel.text
