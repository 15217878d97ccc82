"""The steps on whole scans that are not in the paper."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMMixLib.config import VolumeConfig
from SAMMixLib.inference.postprocessing import (
    SUREST,
    gate,
    hysteresis_threshold,
    largest_component,
    likeliest_interval,
    smooth_boxes,
)


def test_hysteresis_keeps_runs_that_reach_the_high_threshold():
    p = np.array([0.1, 0.4, 0.6, 0.4, 0.1, 0.4, 0.45, 0.1])
    assert hysteresis_threshold(p, 0.5, 0.3).tolist() == [False, True, True, True, False, False, False, False]
    assert hysteresis_threshold(p, 0.5, 0.5).tolist() == (p >= 0.5).tolist()
    assert not hysteresis_threshold(np.zeros(3), 0.5, 0.3).any()


def test_unsure_slices_inside_an_interval_stay_and_a_false_alarm_far_off_goes():
    p = np.array([0.1, 0.9, 0.1, 0.1, 0.1, 0.8, 0.99, 0.3, 0.4, 0.99, 0.8, 0.1])
    assert np.flatnonzero(likeliest_interval(p, 0.5, 0.5)).tolist() == [5, 6, 7, 8, 9, 10]


def test_there_is_no_interval_where_no_slice_is_sure():
    assert not likeliest_interval(np.array([0.4, 0.6, 0.4]), 0.7, 0.3).any()
    assert not likeliest_interval(np.zeros(0), 0.7, 0.3).any()
    assert not likeliest_interval(np.array([0.1, 0.2]), 0.0, 0.5).any()  # every interval speaks against itself


def test_the_config_chooses_the_gate():
    p = np.array([0.9, 0.2, 0.9, 0.1, 0.1, 0.9])
    assert gate(p, VolumeConfig()).tolist() == [True, False, True, False, False, True]
    assert gate(p, VolumeConfig(gate="interval")).tolist() == [True, True, True, False, False, False]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 99), min_size=1, max_size=12), st.sampled_from([0.2, 0.5, 0.7]))
def test_no_other_interval_is_likelier(percent, low):
    p = np.array(percent) / 100
    gain = np.clip(np.log(p / (1 - p)), -SUREST, SUREST) - np.log(low / (1 - low))
    best = max(gain[a:b].sum() for a in range(len(p)) for b in range(a + 1, len(p) + 1))
    chosen = likeliest_interval(p, 0.0, low)
    assert np.isclose(gain[chosen].sum(), max(best, 0.0))
    assert (np.diff(np.flatnonzero(chosen)) == 1).all()


def test_smoothing_takes_the_median_of_neighbouring_boxes():
    boxes = [torch.tensor([[float(x), 0.0, 10.0, 10.0]]) for x in (1, 9, 2)] + [torch.zeros(0, 4)]
    assert [box[:, 0].tolist() for box in smooth_boxes(boxes, 1)] == [[1.0], [2.0], [2.0], []]


def test_largest_component_is_3d():
    mask = np.zeros((4, 8, 8), bool)
    mask[0:3, 1:3, 1:3] = True
    mask[3, 5:8, 5:8] = True
    kept = largest_component(mask)
    assert kept.sum() == 12 and not kept[3].any() and not largest_component(mask & False).any()
