"""The threshold on p(liver): what it must do on any validation set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.training.validation import best_prompt_threshold


def slices(areas):
    """Masks [n, 4, 4] of so many voxels each."""
    return np.arange(16).reshape(1, 4, 4) < np.array(areas)[:, None, None]


def test_threshold_lies_between_liver_and_the_rest():
    p = np.array([0.1, 0.2, 0.3, 0.36])
    assert best_prompt_threshold(p, slices([4, 4, 9, 9]), slices([0, 0, 8, 8])) == pytest.approx(0.25)


def test_a_mask_that_is_worth_nothing_does_not_lower_it():
    p = np.array([0.1, 0.2, 0.9])
    assert best_prompt_threshold(p, slices([4, 4, 8]), slices([0, 0, 8])) == pytest.approx(0.55)


def test_without_a_negative_every_slice_stays():
    assert best_prompt_threshold(np.array([0.4, 0.9]), slices([3, 8]), slices([4, 8])) == pytest.approx(0.2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 100).map(lambda n: n / 100), st.integers(0, 16), st.integers(0, 16)),
        min_size=1,
        max_size=12,
    )
)
def test_no_other_threshold_is_better(rows):
    percent, predicted, reference = (np.array(column) for column in zip(*rows, strict=True))
    p = percent / 100
    masks, truth = slices(predicted), slices(reference)

    def score(threshold):
        kept = masks & (p >= threshold)[:, None, None]
        return np.nan_to_num(mean_dice(kept, truth))

    best = score(best_prompt_threshold(p, masks, truth))
    assert all(best >= score(threshold) - 1e-6 for threshold in (*p, 0.0, 0.5, 1.0))
