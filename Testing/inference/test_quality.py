"""Signs of doubt, one at a time; the Dice to expect, and a model that is fitted on them."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.quality import SIGNS, QualityModel, fit_quality, signs_of_doubt, slices_to_review

P = np.array([0.1, 0.9, 0.99, 0.99, 0.99, 0.9, 0.1])
IOU = np.array([0, 0.95, 0.95, 0.0, 0.95, 0.95, 0])  # SAM did not look at slice 3
AREA = np.array([0.0, 50, 60, 70, 60, 50, 0])


def changed(values: np.ndarray, k: int, value: float) -> np.ndarray:
    copy = values.copy()
    copy[k] = value
    return copy


def test_a_sure_and_smooth_liver_needs_no_review():
    assert slices_to_review(P, IOU, AREA, 0.7) == []
    assert slices_to_review(P * 0, IOU * 0, AREA * 0, 0.7) == []
    assert slices_to_review(P[:1], IOU[:1], AREA[:1], 0.7) == []


def test_each_sign_of_doubt_is_found():
    assert slices_to_review(changed(P, 1, 0.5), IOU, AREA, 0.7) == [1]
    assert slices_to_review(changed(P, 6, 0.8), IOU, AREA, 0.7) == [6]  # liver, says the classifier, but no mask
    assert slices_to_review(P, changed(IOU, 4, 0.8), AREA, 0.7) == [4]
    assert slices_to_review(P, IOU, changed(AREA, 3, 200), 0.7) == [2, 3, 4]
    assert slices_to_review(changed(P, 6, np.nan), IOU, AREA, 0.7) == []


def test_the_worst_comes_first():
    assert slices_to_review(changed(changed(P, 1, 0.6), 5, 0.3), changed(IOU, 3, 0.85), AREA, 0.7) == [5, 3, 1]


def three_slices():
    """Three slices: none, a square as the CAM and the box say, and one that spills out of its box."""
    masks, cams = np.zeros((3, 32, 32), bool), np.zeros((3, 32, 32), np.float32)
    masks[1, 8:24, 8:24] = True
    cams[1, 8:24, 8:24] = 1
    masks[2, 8:24, 8:28] = True
    masks[2, 2, 2] = True
    cams[2, 8:16, 8:24] = 0.7
    boxes = [[], [(8, 8, 23, 23)], [(8, 8, 23, 15)]]
    p_liver, iou = np.array([0.1, 0.99, 0.5]), np.array([0, 0.9, 0])
    return masks, cams, boxes, p_liver, iou


def test_signs_of_a_scan():
    masks, cams, boxes, p_liver, iou = three_slices()
    signs = signs_of_doubt(masks, cams, boxes, p_liver=p_liver, predicted_iou=iou)
    assert signs.shape == (3, len(SIGNS)) and np.isnan(signs[0]).all() and not np.isnan(signs[1:]).any()
    good, bad = (dict(zip(SIGNS, row, strict=True)) for row in signs[1:])
    assert good["CAM against mask"] == 1 and good["outside the box"] == 0 and good["ragged"] == 0
    assert bad["SAM's predicted IoU"] == good["SAM's predicted IoU"] == 0.9  # of the nearest slice that SAM saw
    assert bad["outside the box"] == pytest.approx((321 - 128) / 321)
    assert bad["ragged"] == pytest.approx(1 / 321) and bad["log-odds of liver"] == pytest.approx(0)
    assert good["jump"] == pytest.approx(np.log(321 / 256)) and bad["jump"] == pytest.approx(good["jump"])


def test_a_fitted_model_finds_the_poor_slices_of_others():
    random = np.random.default_rng(0)

    def draw(n):
        signs = random.normal(size=(n, len(SIGNS)))
        return signs, 1 / (1 + np.exp(-(2 + signs[:, 2] - 0.5 * signs[:, 3])))

    signs, dice = draw(300)
    signs[0] = np.nan
    model = fit_quality(signs, dice)
    others, truth = draw(200)
    assert np.corrcoef(model.expected_dice(others), truth)[0, 1] > 0.98
    assert np.abs(model.expected_dice(others) - truth).mean() < 0.03
    assert np.isnan(model.expected_dice(signs[:1])).all()


def test_it_is_kept_in_a_card():
    signs = np.random.default_rng(1).normal(size=(40, len(SIGNS)))
    model = fit_quality(signs, np.full(40, 0.9))
    assert QualityModel.from_dict(model.to_dict()) == model
    for wrong in ({"signs": ["area"]}, {"weights": [1.0]}, {"bias": None}):
        with pytest.raises(SAMMixError, match="not usable"):
            QualityModel.from_dict(model.to_dict() | wrong)
