"""The gate along z: one interval, the likeliest of all."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMMixLib.config import VolumeConfig
from SAMMixLib.gating import SUREST, gate, hysteresis, interval


def log_odds(p):
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def test_unsure_slices_inside_stay_and_a_false_alarm_far_off_goes():
    p = np.array([0.1, 0.9, 0.1, 0.1, 0.1, 0.8, 0.99, 0.3, 0.4, 0.99, 0.8, 0.1])
    assert np.flatnonzero(interval(p, 0.5, 0.5)).tolist() == [5, 6, 7, 8, 9, 10]


def test_no_slice_passes_where_none_is_sure():
    assert not interval(np.array([0.4, 0.6, 0.4]), 0.7, 0.3).any()
    assert not interval(np.zeros(0), 0.7, 0.3).any()
    assert not interval(np.array([0.1, 0.2]), 0.0, 0.5).any()  # every interval speaks against itself


def test_the_config_chooses_the_rule():
    p = np.array([0.9, 0.2, 0.9, 0.1, 0.1, 0.9])
    as_runs, as_one = VolumeConfig(gate_high=0.5, gate_low=0.5), VolumeConfig(one_interval=True)
    assert gate(p, as_runs).tolist() == hysteresis(p, 0.5, 0.5).tolist() == [True, False, True, False, False, True]
    assert gate(p, as_one).tolist() == [True, True, True, False, False, False]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 99), min_size=1, max_size=12), st.sampled_from([0.2, 0.5, 0.7]))
def test_no_other_interval_is_likelier(percent, low):
    p = np.array(percent) / 100
    gain = np.clip(log_odds(p), -SUREST, SUREST) - log_odds(low)
    best = max(gain[a:b].sum() for a in range(len(p)) for b in range(a + 1, len(p) + 1))
    chosen = interval(p, 0.0, low)
    assert np.isclose(gain[chosen].sum(), max(best, 0.0))
    assert (np.diff(np.flatnonzero(chosen)) == 1).all()
