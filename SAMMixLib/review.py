"""Which slices a radiologist should look at first."""

from __future__ import annotations

from SAMMixLib.results import SegmentationResult


def slices_to_review(result: SegmentationResult, gate_high: float, gate_low: float) -> list[int]:
    return []
