"""nnU-Net: what it is given, what it says where it is missing, and a real run of two steps where it is installed."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments import nnunet
from SAMMixLib.experiments.baselines import train_baseline
from SAMMixLib.experiments.baselines_training import BaselinePlan, RowBudget
from SAMMixLib.inference.device import Runtime
from SAMMixLib.training.sets import TrainingData

PLAN = BaselinePlan("nnunet", RowBudget(epochs=1))

SIZE = 64


def discs(patient: str, seed: int, spacing: float = np.nan) -> SliceDataset:
    """Twelve noisy slices in no order; two of three show a bright disc of its own size."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    indices = random.permutation(12)
    distance = (rows - 30) ** 2 + (columns - 24) ** 2
    masks = np.stack([(distance < 80 + 20 * k) & (k % 3 > 0) for k in indices]).astype(np.uint8)
    return SliceDataset(
        images=(random.normal(20, 15, masks.shape) + 90 * masks).astype(np.int16),
        labels=masks.any(axis=(1, 2)),
        masks=masks,
        has_mask=np.ones(12, bool),
        patients=np.array([patient] * 12),
        indices=indices,
        spacings=np.full((12, 2), spacing, np.float32),
    )


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(nnunet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SAMMixError, match=r"pip install 'sammix\[nnunet\]'"):
        train_baseline(PLAN, TrainingData(discs("a", 0), discs("b", 1)), tmp_path)


def test_raw_data_are_stacks_in_order_with_their_masks(tmp_path):
    import SimpleITK as sitk

    data = SliceDataset.concatenate([discs("b", 1, 0.75), discs("a", 0)])
    nnunet.export(data, tmp_path)
    assert json.loads((tmp_path / "dataset.json").read_text())["numTraining"] == 2
    for n, (name, spacing) in enumerate((("a", 1.0), ("b", 0.75))):
        image = sitk.ReadImage(tmp_path / "imagesTr" / f"patient{n:04d}_0000.nii.gz")
        mask = sitk.ReadImage(tmp_path / "labelsTr" / f"patient{n:04d}.nii.gz")
        assert image.GetSpacing() == mask.GetSpacing() == pytest.approx((spacing, spacing, nnunet.BETWEEN_SLICES))
        own = data.select(data.patients == name)
        own = own.select(np.argsort(own.indices))
        assert np.array_equal(sitk.GetArrayFromImage(image), own.images)
        assert np.array_equal(sitk.GetArrayFromImage(mask), own.masks)


@pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="the extra sammix[nnunet] is not installed")
def test_it_trains_and_segments(tmp_path):
    train = SliceDataset.concatenate([discs("a", 0), discs("b", 1), discs("c", 2)])
    unseen = replace(train, has_mask=train.has_mask & (train.patients != "c"))
    validation = discs("d", 3)
    progress = []
    data = TrainingData(unseen, validation)
    predictor = train_baseline(PLAN, data, tmp_path, Runtime(progress=lambda *at: progress.append(at)))
    assert ("train", 0, 1000) in progress
    found = predictor(validation)
    assert found.masks.shape == validation.masks.shape and found.masks.dtype == bool
    assert np.array_equal(found.p_liver >= 0.5, found.masks.any(axis=(1, 2)))
    # The order of the slices is that of the data set, not that of the stack.
    back = predictor(validation.select(np.arange(12)[::-1]))
    assert np.array_equal(back.masks[::-1], found.masks)
    # A run that is over is only read.
    written = (tmp_path / nnunet.WEIGHTS).stat().st_mtime_ns
    train_baseline(PLAN, data, tmp_path)
    assert (tmp_path / nnunet.WEIGHTS).stat().st_mtime_ns == written
