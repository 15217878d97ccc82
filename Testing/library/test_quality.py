"""The Dice to expect of a slice: its signs of doubt, and a model that is fitted on them."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMixLib.quality import SIGNS, QualityModel, fit_quality, signs_of_doubt


def scan():
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
    masks, cams, boxes, p_liver, iou = scan()
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
    with pytest.raises(ValueError, match="fitted on"):
        QualityModel.from_dict(model.to_dict() | {"signs": ["area"]})
