"""The promise on a real scan: correct five slices, press Train, get a better model for all the others."""

from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from slicerhost.desktop import click
from test_training import MAX_GAP, settle, trainer  # noqa: F401  (a fixture)

from SAMMixLib.scene.segments import findSegment
from SAMMixLib.session.training import Training

CORRECTED = 5


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.mark.timeout(1800)
def test_five_corrected_slices_make_the_others_better(trainer, shared_data):  # noqa: F811
    clinic, ui = trainer, trainer.ui
    clinic.train.training = Training(
        clinic.widget.logic.newWorker, clinic.train.training._user, clinic.session.settings
    )
    clinic.load(shared_data / "volumes" / "chaos_ct3_ct.nii.gz")
    ui.segmentationSelector.setCurrentNode(None)
    human = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "volumes" / "chaos_ct3_liver.nii.gz"))) > 0
    clinic.segment(600)
    case, collector, training = clinic.tab.case, clinic.train.collector, clinic.train.training
    before = clinic.liver() > 0

    corrected = []
    for _ in range(CORRECTED):  # by the reference, where the module says so
        click(ui.suggestButton)
        clinic.wait(lambda: clinic.session.suggested and not clinic.session.busy, 60)
        k = clinic.session.suggested[1]
        array = clinic.liver().copy()
        array[k] = human[k]
        liver = findSegment(case.segmentationNode)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, case.segmentationNode, liver, case.volumeNode)
        case.jump(k)
        click(ui.useSliceButton)
        settle(clinic)
        corrected.append(k)
    shown = np.flatnonzero(human.any(axis=(1, 2)))
    ui.fromSpinBox.value, ui.toSpinBox.value, ui.restCheckBox.checked = int(shown[0]), int(shown[-1]), True
    click(ui.rangeButton)
    gap = settle(clinic)
    assert len(set(corrected)) == CORRECTED and len(collector.entries) == len(human) and gap.work < MAX_GAP

    started = time.perf_counter()
    click(ui.trainButton)
    gap = clinic.wait(lambda: not training.busy, 1200)
    seconds = time.perf_counter() - started
    assert not training.error and gap.work < MAX_GAP
    outcome = training.outcome
    click(ui.useModelButton)
    clinic.segment(600)
    after = clinic.liver() > 0
    others = np.setdiff1d(np.arange(len(human)), corrected)
    gained = [dice(mask[others], human[others]) for mask in (before, after)]
    print(
        f"\nslices {corrected} corrected; trained {seconds:.0f} s; held out {outcome.before:.4f} to {outcome.after:.4f}"
    )
    print(f"Dice on the {len(others)} other slices {gained[0]:.4f} before, {gained[1]:.4f} after; longest gap {gap}")
    assert gained[1] > gained[0]
