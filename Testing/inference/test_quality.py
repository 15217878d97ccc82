"""Signs of doubt, one at a time."""

from __future__ import annotations

import numpy as np

from SAMMixLib.inference.quality import slices_to_review

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
