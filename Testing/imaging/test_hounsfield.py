"""Values that are no HU are found by their histogram, and the likely repair is named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from odd_files import hu

from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.imaging.hounsfield import doubt_in_values

ODD = {
    "HU + 1024": (lambda v: v + 1024, "subtract 1024"),
    "HU + 1000": (lambda v: v + 1000, "subtract 10"),
    "HU + 1024, padded": (lambda v: np.where(_rim(v), -1000, v + 1024), "subtract 1024"),
    "HU + 1024, padded with -2000": (lambda v: np.where(_rim(v), -2000, v + 1024), "subtract 1024"),
    "intercept twice": (lambda v: v - 1024, "applied twice: add 10"),
    "inverted": (lambda v: -v, "inverted: change the sign"),
    "inverted before the intercept": (lambda v: -v - 1024, "inverted"),
    "doubled": (lambda v: v * 2, "halve"),
    "doubled slope": (lambda v: (v + 1024) * 2 - 1024, "halve"),
    "halved": (lambda v: v / 2, "double"),
    "intercept twice, cut at -1024": (lambda v: np.maximum(v - 1024, -1024), "nearly no soft tissue"),
    "a window of 0 to 255": (lambda v: np.clip((v + 150) * 255 / 400, 0, 255), "no "),
}


def _rim(values: np.ndarray) -> np.ndarray:
    j, i = np.indices(values.shape[1:])
    middle = values.shape[1] / 2
    return np.broadcast_to(np.hypot(j - middle, i - middle) > middle, values.shape)


@pytest.mark.parametrize("name", ODD)
def test_the_likely_repair_is_named(name):
    change, words = ODD[name]
    assert words in doubt_in_values(change(hu().astype(np.float32)))


@pytest.mark.parametrize("seed", range(3))
def test_a_ct_gives_no_doubt(seed):
    values = make_phantom(seed + 5, (80, 80, 20)).ct
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(values)
    assert doubt_in_values(array) == ""
    for padding in (-3024, -2000, -1024):
        assert doubt_in_values(np.where(_rim(array), padding, array)) == ""
    assert doubt_in_values(np.where(_rim(array), 0, array)) == "", "some programs fill with 0"
    assert doubt_in_values(array[:, 20:60, 15:65]) == "", "cut to the body"
    noisy = array + np.random.default_rng(seed).normal(0, 40, array.shape)
    assert doubt_in_values(noisy) == "", "a low dose"


def test_few_voxels_say_little():
    assert doubt_in_values(np.random.default_rng(0).integers(-1000, 500, (4, 5, 6))) == ""
