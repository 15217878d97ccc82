"""Masks between the slices that SAM saw."""

from __future__ import annotations

import numpy as np

from SAMMixLib.inference.postprocessing import fill_between, spaced


def test_runs_keep_their_ends():
    assert spaced([3, 4, 5, 6, 7, 8, 20, 21, 30], 3) == [3, 6, 8, 20, 21, 30]
    assert spaced([5, 6, 7], 1) == [5, 6, 7] and spaced([], 2) == []


def test_an_outline_moves_evenly_from_one_slice_to_the_next():
    x = np.arange(100, dtype=np.float32)
    logits = np.full((5, 1, 100), -10, np.float32)
    logits[0], logits[4] = np.clip(20 - x, -10, 10), np.clip(28 - x, -10, 10)
    fill_between(logits, [0, 4], [0, 1, 2, 3, 4])
    widths = (logits > 0).sum(axis=(1, 2)).tolist()
    assert widths == [20, 22, 24, 26, 28]
