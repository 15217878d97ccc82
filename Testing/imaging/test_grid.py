"""A mask comes back on exactly the grid of its scan, whatever that grid is."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.masks import mask_on_grid, read_mask
from SAMMixLib.imaging.volume import AxialStack, Volume, read_volume
from SAMMixLib.imaging.writing import WRITABLE, write_mask

SIZE = (3, 4, 5)
CODES = [
    "".join(ends[axis] for ends, axis in zip(signs, order, strict=True))
    for signs in itertools.product(*[("LPS", "RAI")] * 3)
    for order in itertools.permutations(range(3))
]


def axis_aligned(code: str) -> np.ndarray:
    return np.reshape(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation(code), (3, 3))


@st.composite
def grids(draw) -> sitk.Image:
    """A scan on any grid: one of the 48 axis codes, then perhaps a rotation by anything."""
    direction = axis_aligned(draw(st.sampled_from(CODES)))
    turn = draw(st.none() | st.tuples(*[st.floats(-180, 180)] * 3))
    if turn is not None:
        direction = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ direction
    return scan(
        direction,
        draw(st.tuples(*[st.floats(0.3, 6.0)] * 3)),
        draw(st.tuples(*[st.floats(-1500.0, 1500.0)] * 3)),
    )


def scan(direction: np.ndarray, spacing=(0.7, 0.8, 2.5), origin=(-120.25, 30.5, -700.125)) -> sitk.Image:
    hu = np.arange(np.prod(SIZE)).reshape(SIZE[::-1]) * 20 - 1000
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetDirection(direction.ravel())
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def as_volume(image: sitk.Image) -> Volume:
    return Volume(image, Path("scan.nii.gz"))


def assert_same_grid(one: sitk.Image, other: sitk.Image, tolerance: float = 0.0) -> None:
    assert one.GetSize() == other.GetSize()
    for get in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
        np.testing.assert_allclose(get(one), get(other), rtol=tolerance, atol=tolerance)


def test_there_are_48_codes():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("code", CODES)
def test_axial_is_dicom_orient(code):
    """On every axis code and on a slightly oblique grid the stack is what SimpleITK makes of it."""
    oblique = Rotation.from_euler("xyz", [4, -7, 11], degrees=True).as_matrix() @ axis_aligned(code)
    for direction in (axis_aligned(code), oblique):
        image = scan(direction)
        upright = sitk.DICOMOrient(image, "LPS")
        stack = as_volume(image).axial()
        assert np.array_equal(stack.array, sitk.GetArrayFromImage(upright))
        assert stack.spacing == upright.GetSpacing()[::-1]


@given(grids())
@settings(max_examples=150, deadline=None)
def test_slice_axis_is_the_nearest_to_superior(image):
    stack = as_volume(image).axial()
    direction = np.abs(np.reshape(image.GetDirection(), (3, 3)))
    assert stack.array.shape[0] == image.GetSize()[int(direction[2].argmax())]


@given(grids())
@settings(max_examples=150, deadline=None)
def test_to_grid_inverts_axial(image):
    stack = as_volume(image).axial()
    mask = stack.array > 0
    back = stack.to_grid(mask)
    assert back.GetPixelID() == sitk.sitkUInt8
    assert_same_grid(back, image)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image) > 0)


@pytest.mark.parametrize("suffix", WRITABLE)
@given(image=grids())
@settings(max_examples=40, deadline=None)
def test_mask_grid_is_input_grid_in_every_format(suffix, image):
    with tempfile.TemporaryDirectory() as folder:
        stack = as_volume(image).axial()
        path = Path(folder) / f"mask{suffix}"
        write_mask(stack.to_grid(stack.array > 0), path)
        mask = read_mask(path)
    assert_same_grid(mask, image, 1e-6 if ".nii" in suffix else 1e-12)  # NIfTI stores single precision
    assert np.array_equal(mask_on_grid(mask, image), sitk.GetArrayFromImage(image) > 0)


@given(image=grids())
@settings(max_examples=40, deadline=None)
def test_nifti_in_nifti_out(image):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        sitk.WriteImage(image, str(path))
        volume = read_volume(path)
        write_mask(volume.axial().to_grid(volume.axial().array > 0), Path(folder) / "mask.nii.gz")
        mask = read_mask(Path(folder) / "mask.nii.gz")
    assert mask.GetOrigin() == volume.image.GetOrigin()
    assert_same_grid(mask, volume.image, 2e-7)


@given(grids(), st.sampled_from(CODES))
@settings(max_examples=150, deadline=None)
def test_mask_in_another_axis_order(image, code):
    expected = (sitk.GetArrayFromImage(image) > 0).astype(np.uint8)
    stored = sitk.DICOMOrient(image > 0, code)
    stored.SetOrigin(np.array(stored.GetOrigin()) + 1e-4)  # the rounding of another program
    assert np.array_equal(mask_on_grid(stored, image), expected)


def test_masks_of_another_grid_are_refused():
    reference = scan(np.eye(3))
    mask = reference > 0

    def refusal(**changes) -> str:
        other = sitk.Image(mask)
        for name, value in changes.items():
            getattr(other, f"Set{name}")(value)
        with pytest.raises(SAMMixError) as caught:
            mask_on_grid(other, reference)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "0.5 voxels off" in refusal(Origin=(-119.9, 30.5, -700.125))
    assert "axes or spacing" in refusal(Spacing=(0.7, 0.8, 5.0))
    assert "voxels off" in refusal(Spacing=(0.7, 0.8, 2.7))
    assert "voxels off" in refusal(Direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    with pytest.raises(SAMMixError, match=r"size is not the volume's: 3 x 4 x 4 .* against 3 x 4 x 5"):
        mask_on_grid(mask[:, :, :4], reference)


def test_stack_of_a_sagittal_scan():
    stack = as_volume(scan(axis_aligned("PIR"))).axial()
    assert stack.array.shape == (4, 3, 5)
    assert stack.spacing == (0.8, 0.7, 2.5)


def test_to_grid_refuses_another_shape():
    stack = AxialStack(np.zeros((5, 4, 3), np.int16), scan(np.eye(3)))
    with pytest.raises(RuntimeError):
        stack.to_grid(np.zeros((5, 4, 4), bool))


def test_one_volume_in_four_axis_orders(shared_data):
    stacks = [read_volume(path).axial() for path in sorted((shared_data / "odd" / "nifti_space").iterdir())]
    for stack in stacks:
        assert np.array_equal(stack.array, stacks[0].array)
        mask = stack.to_grid(stack.array > 40)
        assert_same_grid(mask, stack.reference)
        assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(stack.reference) > 40)


def test_mask_outlives_its_image():
    reference = scan(np.eye(3))
    array = mask_on_grid(reference > 0, reference)
    assert array.flags.owndata


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("name", ["totalseg_a_img.nii.gz", "totalseg_b_dicom"])
def test_real_scans_round_trip(shared_data, tmp_path, name, suffix):
    stack = read_volume(shared_data / "volumes" / name).axial()
    path = tmp_path / f"mask{suffix}"
    write_mask(stack.to_grid(stack.array > 100), path)
    mask = read_mask(path)
    assert_same_grid(mask, stack.reference, 1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(stack.reference) > 100)
