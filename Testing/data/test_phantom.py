"""The drawn abdomen: exact, repeatable, and near enough to a patient."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from SAMMixLib.data.phantom import FIELD_OF_VIEW, LABELS, TISSUES, make_phantom
from SAMMixLib.errors import SAMMixError

SMALL = (128, 128, 64)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=0)


def arrays(phantom):
    return (sitk.GetArrayFromImage(image) for image in (phantom.ct, phantom.labels, phantom.liver))


@pytest.mark.slow
def test_geometry_is_lps_and_the_same_for_all_three(phantom):
    assert phantom.ct.GetSize() == (256, 256, 64)
    assert np.allclose(np.multiply(phantom.ct.GetSize(), phantom.ct.GetSpacing()), FIELD_OF_VIEW)
    for image in (phantom.ct, phantom.labels, phantom.liver):
        assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert image.GetOrigin() == phantom.ct.GetOrigin()
        assert image.GetSpacing() == phantom.ct.GetSpacing()
    assert phantom.ct.GetPixelID() == sitk.sitkInt16
    assert phantom.labels.GetPixelID() == phantom.liver.GetPixelID() == sitk.sitkUInt8


def test_the_same_seed_draws_the_same_patient_and_another_seed_another():
    first, again, other = (make_phantom(seed, (48, 48, 24)) for seed in (3, 3, 4))
    for a, b in zip(arrays(first), arrays(again), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(*(sitk.GetArrayFromImage(p.liver) for p in (first, other)))


@pytest.mark.parametrize("seed", range(4))
def test_liver_is_one_piece_of_human_volume_with_slices_free_of_it_at_both_ends(seed):
    phantom = make_phantom(seed, SMALL)
    _, labels, liver = arrays(phantom)
    assert np.array_equal(liver, labels == LABELS["liver"])
    assert ndimage.label(liver)[1] == 1
    assert 1200 < liver.sum() * np.prod(phantom.liver.GetSpacing()) / 1000 < 1650
    with_liver = np.flatnonzero(liver.any((1, 2)))
    assert with_liver[0] >= 8 and with_liver[-1] <= len(liver) - 9
    assert np.array_equal(with_liver, np.arange(with_liver[0], with_liver[-1] + 1))


def test_liver_lies_on_the_patients_right_and_crosses_the_midline(phantom):
    _, _, liver = arrays(phantom)
    middle = liver.shape[2] // 2
    assert liver[:, :, :middle].sum() > 4 * liver[:, :, middle:].sum() > 0


@pytest.mark.parametrize(
    ("tissue", "expected", "tolerance"),
    [
        ("liver", 110, 8),
        ("spleen", TISSUES["spleen"][1], 8),
        ("gallbladder", 10, 10),
        ("aorta", 152, 12),
        ("vena cava", 146, 12),
        ("heart", 140, 20),
        ("muscle", 58, 10),
        ("fat", -102, 10),
        ("lung", -860, 30),
        ("air", -1000, 5),
    ],
)
def test_organs_have_their_density(phantom, tissue, expected, tolerance):
    ct, labels, _ = arrays(phantom)
    assert abs(np.median(ct[labels == LABELS[tissue]]) - expected) < tolerance


def test_every_tissue_is_there(phantom):
    assert set(np.unique(sitk.GetArrayFromImage(phantom.labels))) == set(LABELS.values())


def test_noise_inside_the_liver_is_that_of_a_scan(phantom):
    ct, _, liver = arrays(phantom)
    inner = ndimage.binary_erosion(liver, np.ones((1, 7, 7)))
    assert 12 < ct[inner].std() < 22
    vessels = ndimage.gaussian_filter(ct.astype(float), (0, 1, 1))[inner] > 135
    assert 0.005 < vessels.mean() < 0.1


def test_own_spacing_and_a_grid_that_covers_a_part_only():
    phantom = make_phantom(0, (40, 30, 6), (2.0, 2.5, 10.0))
    assert phantom.ct.GetSpacing() == (2.0, 2.5, 10.0)
    assert phantom.ct.GetSize() == (40, 30, 6)


@pytest.mark.parametrize("arguments", [{"size": (64, 64, 0)}, {"size": (8, 8, 8), "spacing": (1.0, 0.0, 1.0)}])
def test_bad_arguments_are_refused_in_one_line(arguments):
    with pytest.raises(SAMMixError, match="phantom") as error:
        make_phantom(**arguments)
    assert "\n" not in str(error.value)
