"""Which slices of a scan get a prompt: the classifier's answers, made consistent along z."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SAMMixLib.config import VolumeConfig

SUREST = 6.0
"""Log-odds beyond which one slice says no more: else a single wrong one outvotes many neighbours."""


def gate(p_liver: np.ndarray, settings: VolumeConfig) -> np.ndarray:
    """The slices ``[k]`` of one scan, in order, that pass: bool ``[k]``, by the rule that `settings` name."""
    if settings.one_interval:
        return interval(p_liver, settings.gate_high, settings.gate_low)
    return hysteresis(p_liver, settings.gate_high, settings.gate_low)


def hysteresis(p_liver: np.ndarray, high: float, low: float) -> np.ndarray:
    """Bool ``[k]``: the runs of slices with p >= `low` that hold one with p >= `high`."""
    runs, count = ndimage.label(p_liver >= min(low, high))
    strong = np.unique(runs[p_liver >= high])
    return np.isin(runs, strong[strong > 0]) if count else np.zeros(len(p_liver), bool)


def interval(p_liver: np.ndarray, high: float, low: float) -> np.ndarray:
    """Bool ``[k]``: the one run of slices that is the likeliest, as a liver is one interval along z.

    A slice speaks for the interval by how far its log-odds lie above those of `low`, and against it where they lie
    below. So a few unsure slices inside a liver stay in, and a lone false alarm far from it stays out. No slice passes
    where none reaches `high`.
    """
    if not len(p_liver) or np.max(p_liver) < high:
        return np.zeros(len(p_liver), bool)
    gain = np.clip(_log_odds(p_liver), -SUREST, SUREST) - _log_odds(np.array(low))
    before = np.concatenate([[0.0], np.cumsum(gain)])  # of the slices before each border
    lowest = np.minimum.accumulate(before[:-1])
    stop = int(np.argmax(before[1:] - lowest)) + 1
    start = int(np.argmin(before[:stop]))
    chosen = np.zeros(len(p_liver), bool)
    chosen[start:stop] = before[stop] > before[start]
    return chosen


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(p, float), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))
