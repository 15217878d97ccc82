"""The promise on a real scan: correct five slices, press Train, get a better model for all the others.

Minutes a seed, so only where ``SAMMIX_SEEDS`` says how many. The seed draws the slices and runs the training.
"""

from __future__ import annotations

import os
import time
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from slicerhost.desktop import click
from test_training import MAX_GAP, settle, take, trainer  # noqa: F401  (a fixture)

from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.module.scene.segments import findSegment
from SAMMixLib.module.session import training as session_training

CORRECTED = 5
SEEDS = range(int(os.environ.get("SAMMIX_SEEDS", "0")))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
def test_five_corrected_slices_make_the_others_better(trainer, shared_data, monkeypatch, seed):  # noqa: F811
    clinic, ui = trainer, trainer.ui
    monkeypatch.setattr(session_training, "Request", partial(session_training.Request, seed=seed))
    training = clinic.train.training = session_training.Training(
        clinic.widget.logic.newWorker, clinic.train.training._user, clinic.session.settings
    )
    clinic.load(shared_data / "volumes" / "chaos_ct3_ct.nii.gz")
    human = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "volumes" / "chaos_ct3_liver.nii.gz"))) > 0
    clinic.segment(600)
    case = clinic.tab.case
    before = clinic.liver() > 0

    shown = np.flatnonzero(human.any(axis=(1, 2)))
    corrected = np.sort(np.random.default_rng(seed).choice(shown, CORRECTED, replace=False))
    array = clinic.liver().copy()
    array[corrected] = human[corrected]
    liver = findSegment(case.segmentationNode)
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, case.segmentationNode, liver, case.volumeNode)
    take(clinic, corrected.tolist())
    ui.fromSpinBox.value, ui.toSpinBox.value, ui.restCheckBox.checked = int(shown[0]), int(shown[-1]), True
    click(ui.rangeButton)
    gap = settle(clinic)
    assert len(clinic.train.collector.entries) == len(human) and gap.work < MAX_GAP

    started = time.perf_counter()
    click(ui.trainButton)
    gap = clinic.wait(lambda: not training.busy, 1200)
    seconds = time.perf_counter() - started
    assert not training.error and gap.work < MAX_GAP
    outcome, name = training.outcome, training.request.name
    click(ui.useModelButton)
    assert clinic.session.settings.model == name
    clinic.segment(600)
    others = np.setdiff1d(np.arange(len(human)), corrected)
    was, now = (mean_dice(mask[others], human[others]) for mask in (before, clinic.liver() > 0))
    print(f"\nseed {seed}: slices {corrected.tolist()} corrected, trained in {seconds:.0f} s, longest gap {gap}")
    print(f"held out {outcome.before:.4f} to {outcome.after:.4f}; the {len(others)} others {was:.4f} to {now:.4f}")
    assert now > was
