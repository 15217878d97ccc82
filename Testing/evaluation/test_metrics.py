"""Scores of masks, against MONAI, against figures known by hand, and against the CHAOS challenge's own."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance, compute_iou

from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation.metrics import BOTH_EMPTY, FALSE_ALARM, MISSED, SCORED, score_masks


def blobs(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two ellipsoids away from the border."""
    grid = np.indices(shape, float)
    random = np.random.default_rng(seed)

    def one() -> np.ndarray:
        centre = [n * random.uniform(0.42, 0.58) for n in shape]
        return (
            sum(((g - c) / (n * random.uniform(0.15, 0.3))) ** 2 for g, c, n in zip(grid, centre, shape, strict=True))
            < 1
        )

    return one(), one()


@pytest.mark.parametrize("shape", [(40, 50), (20, 40, 50)])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_monai(shape, seed):
    prediction, reference = blobs(shape, seed)
    spacing = (2.5, 0.7, 0.8)[-len(shape) :]
    scores = score_masks(prediction, reference, spacing, 1.4)
    batch = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    steps = {"include_background": True, "spacing": spacing}
    assert scores.case == SCORED
    assert scores.dice == pytest.approx(compute_dice(*batch).item(), rel=1e-5)
    assert scores.iou == pytest.approx(compute_iou(*batch).item(), rel=1e-5)
    assert scores.hd_mm == pytest.approx(compute_hausdorff_distance(*batch, **steps).item(), rel=1e-5)
    assert scores.hd95_mm == pytest.approx(compute_hausdorff_distance(*batch, percentile=95, **steps).item(), rel=1e-5)
    distance = compute_average_surface_distance(*batch, symmetric=True, **steps).item()
    assert scores.assd_mm == pytest.approx(distance, rel=1e-5)
    assert scores.assd_px == pytest.approx(scores.assd_mm / 1.4)
    assert scores.hd_px == pytest.approx(scores.hd_mm / 1.4)


def test_a_square_shifted_by_three_pixels():
    reference = np.zeros((30, 30), np.uint8)
    reference[10:20, 10:20] = 1
    scores = score_masks(np.roll(reference, 3, 1), reference)
    assert scores.dice == pytest.approx(0.7) and scores.iou == pytest.approx(70 / 130)
    assert scores.hd_px == 3 and np.isnan(scores.hd_mm)
    assert scores.size_error_percent == 0


def test_the_border_of_the_scan_is_no_surface():
    reference = np.zeros((20, 20), bool)
    reference[:10, 5:15] = True  # cut by the upper border
    prediction = reference.copy()
    prediction[:2] = False
    assert score_masks(prediction, reference).hd_px == 4  # to the sides of the reference; its top has no surface
    full = np.ones((4, 4), bool)
    assert score_masks(full, full).hd_px == 0


@pytest.mark.parametrize(
    ("prediction", "reference", "case", "dice"), [(0, 0, BOTH_EMPTY, None), (0, 1, MISSED, 0), (1, 0, FALSE_ALARM, 0)]
)
def test_empty_masks(prediction, reference, case, dice):
    scores = score_masks(np.full((5, 5), prediction), np.full((5, 5), reference), (1, 1))
    assert scores.case == case
    assert np.isnan(scores.dice) if dice is None else scores.dice == scores.iou == dice
    assert np.isnan([scores.hd_mm, scores.hd95_mm, scores.assd_mm, scores.hd_px]).all()


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(SAMMixError, match="one grid"):
        score_masks(np.ones((3, 3)), np.ones((3, 4)))


def test_the_golden_pair_of_chaos(shared_data):
    images = [
        sitk.ReadImage(str(shared_data / "volumes" / f"chaos_ct3_{name}.nii.gz"))
        for name in ("example_segmentation", "liver")
    ]
    scores = score_masks(*map(sitk.GetArrayViewFromImage, images), images[1].GetSpacing()[::-1])
    assert round(scores.dice, 3) == 0.978
    assert abs(round(scores.size_error_percent, 3)) == 0.665
    assert round(scores.assd_mm, 3) == 0.734
    assert scores.hd_mm == 14
