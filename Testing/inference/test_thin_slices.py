"""Which of the thin slices of a scan the networks look at, and what holds in between."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMMixLib.config import VolumeConfig
from SAMMixLib.inference.postprocessing import gate
from SAMMixLib.inference.thin_slices import (
    fill_between,
    fill_cams,
    fill_outlines,
    halfway,
    masks_alike,
    signed_distances,
    spaced,
    step_of,
    surely_alike,
)

GATE = VolumeConfig(gate_high=0.7, gate_low=0.3)


def disc(radius: float, x: float = 32.0) -> np.ndarray:
    rows, columns = np.mgrid[:64, :64]
    return (rows - 32) ** 2 + (columns - x) ** 2 <= radius**2


def test_runs_keep_their_ends():
    assert spaced([3, 4, 5, 6, 7, 8, 20, 21, 30], 3) == [3, 6, 8, 20, 21, 30]
    assert spaced([5, 6, 7], 1) == [5, 6, 7] and spaced([], 2) == []


def test_slices_far_apart_are_some_of_those_closer_together():
    slices = [*range(5, 63), *range(70, 75)]
    assert set(spaced(slices, 14)) <= set(spaced(slices, 7)) <= set(spaced(slices, 1)) == set(slices)


def test_slices_as_thick_as_the_gap_are_all_seen():
    assert step_of(4.0, 4.0) == step_of(4.0, 2.1) == step_of(0.0, 0.5) == 1
    assert step_of(4.0, 2.0) == 2 and step_of(4.0, 0.52) == 7


def test_between_a_sure_and_an_unsure_slice_there_is_a_question():
    p = np.array([0.1, 0.1, 0.5, 0.5, 0.9, 0.9, 0.1])
    assert surely_alike(p, GATE).tolist() == [True, False, False, False, True, False]
    assert halfway([0, 8, 16, 20, 21], np.array([True, False, False, False])) == [12, 18]


def classified(p_liver: np.ndarray, step: int) -> tuple[np.ndarray, list[int]]:
    """p(liver) of all slices as a scan finds it, and the slices that were seen."""
    seen = sorted({*range(0, len(p_liver), step), len(p_liver) - 1})
    while new := halfway(seen, surely_alike(p_liver[seen], GATE)):
        seen = sorted({*seen, *new})
    found = np.full(len(p_liver), np.nan)
    found[seen] = p_liver[seen]
    fill_between(found, seen, range(len(p_liver)))
    return found, seen


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 60), length=st.integers(20, 60), soft=st.integers(1, 4), step=st.integers(1, 8))
def test_the_ends_of_an_organ_are_found_to_the_slice(start, length, soft, step):
    """p(liver) that rises and falls once, in `soft` slices, passes the same gate as if every slice had been seen."""
    k = np.arange(130)
    p = np.clip(np.minimum(k - start, start + length - k) / soft, 0.02, 0.98)
    found, seen = classified(p, step)
    assert not np.isnan(found).any() and np.array_equal(gate(found, GATE), gate(p, GATE))
    assert len(seen) <= 130 / step + 2 * (soft + 2) * step + 2


def test_one_end_in_thin_slices_costs_a_few_looks_only():
    p = np.where(np.arange(300) < 133, 0.98, 0.02)
    found, seen = classified(p, 7)
    assert np.array_equal(found >= 0.5, p >= 0.5) and len(seen) <= 44 + 4


def test_what_lies_between_two_slices_is_interpolated():
    values = np.array([[0.0], [9.0], [9.0], [9.0], [1.0]], np.float32)
    fill_between(values, [0, 4], [1, 2])
    assert values[:, 0].tolist() == [0.0, 0.25, 0.5, 9.0, 1.0]  # the fourth was not wanted


def test_the_heat_between_two_slices_reaches_one_too():
    cams = np.zeros((5, 1, 2), np.float16)
    cams[0, 0], cams[2, 0] = (1, 0.5), (0, 1)
    fill_cams(cams, [0, 2, 4], [0, 1, 2, 3])
    np.testing.assert_allclose(cams[:, 0], [[1, 0.5], [2 / 3, 1], [0, 1], [0, 1], [0, 0]], atol=1e-3)


def test_masks_are_alike_by_their_dice():
    masks = np.stack([disc(20), disc(20), disc(10), disc(0) & False, disc(0) & False])
    assert masks_alike(masks, 0.85).tolist() == [True, False, False, True]
    assert masks_alike(masks, 0.0).all()


def test_an_outline_moves_evenly_from_one_slice_to_the_next_however_far():
    """Radius 10 to 22: logits that are sure a pixel from each outline would jump from one to the other half-way."""
    levels = np.full((5, 64, 64), -10, np.float16)
    for k, radius in ((0, 10), (4, 22)):
        levels[k] = np.where(disc(radius), 10, -10)
    kept = levels[[0, 4]].copy()
    fill_outlines(levels, [0, 4], [0, 1, 2, 3, 4])
    radii = np.sqrt((levels > 0).sum(axis=(1, 2)) / np.pi)
    np.testing.assert_allclose(radii, [10, 13, 16, 19, 22], atol=0.3)
    assert np.array_equal(levels[[0, 4]], kept)  # what SAM said stays as it is


def test_beside_a_slice_without_a_mask_the_outline_closes():
    levels = np.full((5, 64, 64), -10, np.float16)
    levels[0] = np.where(disc(12), 10, -10)
    fill_outlines(levels, [0, 4], [0, 1, 2, 3, 4])
    areas = (levels > 0).sum(axis=(1, 2))
    assert (np.diff(areas) < 0)[:2].all() and areas[4] == 0


def test_distances_are_negative_outside():
    distances = signed_distances(disc(10))
    assert distances[32, 32] > 9 and distances[0, 0] < -30 and (distances > 0).sum() == disc(10).sum()
    assert (signed_distances(disc(10) & False) < 0).all()
