"""Doubts about a result, from what livers are."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMixLib.inference.plausibility import doubts_about
from SAMMixLib.structure import SPLEEN

SPACING = (10.0, 3.0, 3.0)  # a box of 10 x 40 x 40 voxels has 1440 ml


def box(k=slice(5, 15), j=slice(10, 50), i=slice(10, 50)) -> np.ndarray:
    mask = np.zeros((20, 64, 64), bool)
    mask[k, j, i] = True
    return mask


def doubts(mask: np.ndarray, value: float = 60, spacing=SPACING, **more) -> str:
    return "\n".join(doubts_about(mask, np.full(mask.shape, value), spacing, **more))


def test_a_liver_gives_no_doubt():
    assert doubts(box()) == ""


@pytest.mark.parametrize(
    ("mask", "more", "words"),
    [
        (np.zeros((20, 64, 64), bool), {}, "no liver found"),
        (box(), {"spacing": (1, 1, 1)}, "16 ml, outside 300 to 4500 ml"),
        (box(), {"spacing": (30, 5, 5)}, "12000 ml"),
        (box(), {"value": -600}, "-600 HU in the mean, outside -20 to 220 HU"),
        (box(), {"value": 700}, "700 HU in the mean"),
        (box(k=slice(0, 10)), {}, "touches the lower end of the scan"),
        (box(k=slice(10, 20)), {}, "touches the upper end"),
        (box(k=slice(0, 20)), {}, "touches both ends"),
        (box(i=slice(0, 40)), {}, "touches the side of the slices"),
        (box(i=slice(10, 30)) | box(i=slice(35, 50)), {}, "lies in 2 pieces, the largest of 57%"),
    ],
)
def test_doubts(mask, more, words):
    found = doubts(mask, **more)
    assert words in found and all(line.endswith(("look at the mask", "are HU")) for line in found.splitlines())


def test_of_other_structures_no_volume_and_no_hu_is_expected():
    assert doubts(box(), 700, (1, 1, 1), structure=SPLEEN) == ""
