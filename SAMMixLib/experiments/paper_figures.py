"""What the paper publishes in Table 1 (LiTS) and Table 2 (TotalSegmentator), row by row.

Ward & Imran, "Annotation-Efficient Task Guidance for Medical Segment Anything", ISBI 2025 (arXiv 2412.08575). Where its
prompts came from at test time, and in which unit its distances are, the paper does not say.
"""

from __future__ import annotations

from typing import NamedTuple


class Figures(NamedTuple):
    """A published pair."""

    dice: float
    hd: float


class Published(NamedTuple):
    """A row of the paper's tables."""

    labels: str  # as the paper names its segmentation labels
    lits: Figures
    totalsegmentator: Figures


PAPER = {
    "U-Net": Published("full", Figures(0.897, 13.50), Figures(0.669, 29.59)),
    "nnU-Net": Published("full", Figures(0.863, 21.41), Figures(0.645, 38.50)),
    "TransUNet": Published("full", Figures(0.889, 12.68), Figures(0.642, 42.80)),
    "MultiMix": Published("limited", Figures(0.627, 21.47), Figures(0.159, 97.98)),
    "SAM-PP-0": Published("none", Figures(0.441, 67.57), Figures(0.334, 72.15)),
    "SAM-PP-5": Published("5", Figures(0.754, 36.52), Figures(0.593, 54.78)),
    "SAM-PP-50": Published("50", Figures(0.726, 30.99), Figures(0.579, 46.51)),
    "SAM-PP-100": Published("100", Figures(0.763, 26.54), Figures(0.605, 40.33)),
    "SAM-Mix-5": Published("5", Figures(0.919, 15.14), Figures(0.807, 17.57)),
    "SAM-Mix-50": Published("50", Figures(0.948, 9.84), Figures(0.923, 11.16)),
    "SAM-Mix-100": Published("100", Figures(0.941, 14.67), Figures(0.921, 12.93)),
}
"""In the paper's order."""


def published(row: str) -> Published | None:
    """The paper's row of that name. Its one MultiMix row, of an unstated number of labels, answers for any number."""
    return PAPER["MultiMix"] if row.startswith("MultiMix-") else PAPER.get(row)
