"""Thin slices look much like their neighbours: which of a scan the networks look at, and what holds in between.

The classifier sees slices a few millimetres apart and halves a gap until both sides agree; SAM sees some of the slices
that the classifier saw, again closer where neighbouring masks differ. Pure steps; :class:`~.scan.Scan` calls them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from scipy.ndimage import distance_transform_edt

from SAMMixLib.config import VolumeConfig

NOWHERE = -10.0
"""Pixels: as far as all of a slice without a mask is taken to lie from one."""


def step_of(gap_mm: float, spacing_mm: float) -> int:
    """How many slices lie from one to the next that are no more than `gap_mm` apart; 1 is every slice.

    >>> step_of(4.0, 0.5), step_of(4.0, 5.0), step_of(0.0, 0.5)
    (8, 1, 1)
    """
    return max(1, int(gap_mm / spacing_mm))


def spaced(slices: Sequence[int], step: int) -> list[int]:
    """Of each run of consecutive numbers in sorted `slices`: the first, the multiples of `step`, and the last.

    >>> spaced([4, 5, 6, 7, 8, 20], 3)
    [4, 6, 8, 20]
    """
    chosen = []
    for run in np.split(np.array(slices, int), np.flatnonzero(np.diff(slices) != 1) + 1):
        chosen += sorted({*run[:1].tolist(), *run[run % step == 0].tolist(), *run[-1:].tolist()})
    return chosen


def halfway(seen: Sequence[int], alike: np.ndarray) -> list[int]:
    """The numbers half-way between those two neighbours of sorted `seen` [n] that are not `alike` (bool [n - 1]).

    >>> halfway([0, 4, 8, 9], np.array([True, False, False]))
    [6]
    """
    pairs = zip(pairwise(seen), alike, strict=True)
    return [(low + high) // 2 for (low, high), same in pairs if high - low > 1 and not same]


def surely_alike(p_liver: np.ndarray, settings: VolumeConfig) -> np.ndarray:
    """Bool [n - 1]: whether two neighbours of `p_liver` [n] are both surely with, or both surely without the organ.

    Sure is what the gate's two thresholds leave no question about.

    >>> surely_alike(np.array([0.1, 0.2, 0.5, 0.6, 0.8, 0.9]), VolumeConfig(gate_high=0.7, gate_low=0.3)).tolist()
    [True, False, False, False, True]
    """
    low, high = sorted((settings.gate_low, settings.gate_high))
    with_organ, without = p_liver >= high, p_liver < low
    return (with_organ[1:] & with_organ[:-1]) | (without[1:] & without[:-1])


def masks_alike(masks: np.ndarray, dice: float) -> np.ndarray:
    """Bool [n - 1]: whether neighbours of `masks` (bool [n, S, S]) overlap with at least `dice`."""
    areas = masks.sum(axis=(1, 2))
    both = np.array([(one & other).sum() for one, other in pairwise(masks)], int)
    return 2 * both >= dice * (areas[1:] + areas[:-1])


def fill_between(values: np.ndarray, known: Sequence[int], wanted: Sequence[int]) -> None:
    """Interpolate linearly, in place, the slices of `values` [k, ...] that are `wanted`, between `known` ones."""
    for k, low, high, share in _gaps(known, wanted):
        values[k] = (1 - share) * values[low] + share * values[high]


def fill_cams(cams: np.ndarray, known: Sequence[int], wanted: Sequence[int]) -> None:
    """:func:`fill_between` for CAMs [k, S, S]: the largest value of each is 1 again, where it has one."""
    fill_between(cams, known, wanted)
    for k in set(wanted) - set(known):
        cams[k] /= cams[k].max() or 1


def fill_outlines(levels: np.ndarray, known: Sequence[int], wanted: Sequence[int]) -> None:
    """Draw, in place, the masks ``levels > 0`` [k, S, S] of slices that are `wanted` and lie between `known` ones.

    Signed distances are interpolated, not the levels: their zero moves evenly from one outline to the next however far
    the two are apart, while logits that are sure on both sides leave no outline to move.
    """
    distances: dict[int, np.ndarray] = {}
    for k, low, high, share in _gaps(known, wanted):
        for end in {low, high} - set(distances):
            distances[end] = signed_distances(levels[end] > 0)
        levels[k] = (1 - share) * distances[low] + share * distances[high]


def _gaps(known: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[int, int, int, float]]:
    """Each `wanted` number that is not `known`, its two known neighbours, and how far it is from one to the other."""
    places = np.array(known)
    for k in sorted(set(wanted) - set(known)):
        after = int(np.searchsorted(places, k))
        low, high = int(places[after - 1]), int(places[after])
        yield k, low, high, (k - low) / (high - low)


def signed_distances(mask: np.ndarray) -> np.ndarray:
    """Pixels from each pixel of a mask [S, S] to its outline, float32, negative outside."""
    if not mask.any():
        return np.full(mask.shape, NOWHERE, np.float32)
    inside, outside = (distance_transform_edt(part) for part in (mask, ~mask))
    return (inside - outside).astype(np.float32)
