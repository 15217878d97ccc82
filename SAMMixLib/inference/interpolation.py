"""Thin slices: SAM on some of them, and the mask between two from both.

Neighbouring slices of a thin-slice scan differ little, and the image encoder is what a scan costs. The zero level of
linearly interpolated mask logits moves smoothly from one outline to the next.
"""

from __future__ import annotations

import numpy as np

LOGIT_LIMIT = 10.0
"""Logits are clipped here, so that the surer of two slices does not push the outline towards its own."""


def spaced(slices: list[int], step: int) -> list[int]:
    """Of each run of consecutive numbers in sorted `slices`: the first, every `step`-th from there, and the last."""
    chosen = []
    for run in np.split(np.array(slices, int), np.flatnonzero(np.diff(slices) != 1) + 1):
        chosen += sorted({*run[::step].tolist(), *run[-1:].tolist()})
    return chosen


def fill_between(logits: np.ndarray, known: list[int], wanted: list[int]) -> None:
    """Interpolate, in place, the slices of `logits` [k, S, S] that are `wanted` and not `known`.

    Each lies between two known ones of its run, as :func:`spaced` chooses them.
    """
    places = np.array(known)
    for k in sorted(set(wanted) - set(known)):
        after = int(np.searchsorted(places, k))
        low, high = places[after - 1], places[after]
        share = (k - low) / (high - low)
        logits[k] = (1 - share) * logits[low] + share * logits[high]
