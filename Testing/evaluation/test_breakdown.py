"""Where a model fails: by size, by patient, by its own doubt."""

from __future__ import annotations

import pytest

from SAMMixLib.evaluation.breakdown import breakdown, by_patient, by_size, calibration, expectation

ROWS = [
    {"patient": "a", "liver": True, "p_liver": 0.95, "masked": True, "reference_voxels": 150, "dice": 0.5},
    {"patient": "a", "liver": True, "p_liver": 0.95, "masked": False, "reference_voxels": 200, "dice": 0.0},
    {"patient": "b", "liver": True, "p_liver": 0.15, "masked": True, "reference_voxels": 9000, "dice": 0.9},
    {"patient": "b", "liver": False, "p_liver": 0.15, "masked": False, "reference_voxels": 0},
]


def test_groups_count_slices_with_liver():
    assert [(group.slices, group.missed) for group in by_size(ROWS)] == [(1, 0), (1, 1), (0, 0), (1, 0)]
    assert [(group.name, group.dice) for group in by_patient(ROWS)] == [("a", 0.25), ("b", 0.9)]


def test_calibration_compares_what_was_said_with_what_was_there():
    found = calibration(ROWS)
    assert found.bins == [(0.15, 0.5, 2), (0.95, 1.0, 2)]
    assert found.error == pytest.approx((2 * 0.35 + 2 * 0.05) / 4)
    assert found.brier == pytest.approx((2 * 0.05**2 + 0.85**2 + 0.15**2) / 4)


def test_the_tables_name_what_they_hold():
    text = breakdown([row | {"expected_dice": float("nan")} for row in ROWS])
    assert "| below 200 pixels | 1 | 0.500 | 0 |" in text and "1000 to 2999" not in text and "too few slices" in text
    assert text.index("| a | 2 | 0.250 | 1 |") < text.index("| b | 1 | 0.900 | 0 |")


def test_the_expectation_is_held_against_the_truth():
    rows = [{"patient": "a", "dice": dice, "expected_dice": dice / 2} for dice in (0.2, 0.6, 0.9, 0.95)]
    rows.append({"patient": "a", "dice": 0.0, "expected_dice": float("nan")})  # a missed slice, which nobody judged
    text = expectation(rows)
    assert "correlation 1.00" in text and "AUC for the slices below 0.8: 1.00; 4 slices" in text
