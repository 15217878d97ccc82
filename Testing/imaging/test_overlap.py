"""Dice, the one there is: by hand, over axes, and where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMixLib.imaging.overlap import dice


def test_dice_by_hand_over_all_and_over_slices():
    one, other = np.zeros((2, 3, 4, 4), np.uint8)
    one[0, :2], other[0, 1:3] = 1, 2  # whatever is not 0 counts
    one[1, 0, 0] = 1
    assert dice(one, other) == pytest.approx(2 * 4 / (8 + 8 + 1))
    per_slice = dice(one, other, axes=(1, 2))
    assert per_slice[:2].tolist() == [0.5, 0.0] and np.isnan(per_slice[2])
    assert dice(one, one) == 1


def test_two_empty_masks_have_no_dice():
    assert np.isnan(dice(np.zeros((4, 4)), np.zeros((4, 4), bool)))
