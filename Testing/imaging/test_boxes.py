"""Boxes and maps between the S x S resize, the slice at full resolution, and physical space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMMixLib.imaging.boxes import EdgeBox, PixelBox
from SAMMixLib.imaging.resize import ResizeToSquare
from SAMMixLib.imaging.volume import Volume

LENGTHS, STEPS = st.integers(5, 700), st.floats(0.3, 5.0)


@st.composite
def frames(draw) -> ResizeToSquare:
    return ResizeToSquare(
        (draw(LENGTHS), draw(LENGTHS)), (draw(STEPS), draw(STEPS)), draw(st.sampled_from([64, 256, 1024]))
    )


@settings(max_examples=200, deadline=None)
@given(resize=frames(), data=st.data())
def test_a_box_goes_to_the_square_and_back(resize, data):
    rows, columns = resize.shape
    i0, j0 = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    i1, j1 = data.draw(st.integers(i0, columns - 1)), data.draw(st.integers(j0, rows - 1))
    edges = resize.apply_boxes([PixelBox(i0, j0, i1, j1)])[0]
    assert resize.invert_boxes([edges])[0] == (i0, j0, i1, j1)
    assert min(edges) >= -1e-6 and max(edges) <= resize.size + 1e-6
    assert np.isclose((edges[2] - edges[0]) * resize.pixel_mm, (i1 + 1 - i0) * resize.spacing[1])


@settings(max_examples=100, deadline=None)
@given(resize=frames(), sides=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_any_box_in_the_square_holds_a_pixel_of_the_slice(resize, sides):
    x0, x1, y0, y1 = (side * resize.size for side in (*sorted(sides[:2]), *sorted(sides[2:])))
    i0, j0, i1, j1 = resize.invert_boxes([EdgeBox(x0, y0, x1, y1)])[0]
    assert 0 <= i0 <= i1 < resize.shape[1] and 0 <= j0 <= j1 < resize.shape[0]


def test_a_box_in_the_square_is_where_the_square_shows_its_pixels():
    slices = np.zeros((1, 90, 120), np.float32)
    slices[0, 30:51, 60:81] = 1
    resize = ResizeToSquare(slices.shape[1:], (2.0, 1.5), 256)
    squares = resize.apply(slices, 0.0)
    rows, columns = np.nonzero(squares[0] > 0.5)
    x0, y0, x1, y1 = resize.apply_boxes([PixelBox(60, 30, 80, 50)])[0]
    assert (
        np.abs(np.subtract((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), (x0, y0, x1, y1))).max() <= 1
    )


def affine(image: sitk.Image) -> np.ndarray:
    """[3, 4]: index (x, y, z, 1) to physical point."""
    return np.c_[np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing(), image.GetOrigin()]


def points_of(image: sitk.Image) -> np.ndarray:
    """[3, z, y, x]: the physical point of each voxel."""
    z, y, x = np.indices(image.GetSize()[::-1])
    return np.tensordot(affine(image), np.stack([x, y, z, np.ones_like(x)]), 1)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(*[st.integers(12, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 4.0)] * 3),
    angles=st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    order=st.sampled_from(["LPS", "RAI", "PIL", "SPR", "LSA", "ARS", "IAL"]),
    mirrored=st.booleans(),
    ramp=st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_a_physical_point_is_the_same_in_the_map_and_in_the_volume(size, spacing, angles, order, mirrored, ramp):
    """Values that are linear in space stay so in the resize, so each of its pixels tells where it lies."""
    rotation = sitk.Euler3DTransform()
    rotation.SetRotation(*angles)
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing(spacing)
    grid.SetOrigin((-31.5, 12.25, 400.0))
    grid.SetDirection((np.reshape(rotation.GetMatrix(), (3, 3)) * ([-1, 1, 1] if mirrored else [1, 1, 1])).ravel())
    image = sitk.GetImageFromArray(np.tensordot(ramp, points_of(grid), 1).astype(np.float32))
    image.CopyInformation(grid)
    if not mirrored:
        image = sitk.DICOMOrient(image, order)

    stack = Volume(image, Path("ct.nrrd")).axial()
    resize = ResizeToSquare(stack.array.shape[1:], stack.spacing[1:], 64)
    squares = resize.apply(stack.array)
    maps = stack.maps_to_image(squares, resize)
    assert maps.GetSize() == (64, 64, len(stack.array))
    points = points_of(maps)
    to_index = np.linalg.inv(affine(image)[:, :3])
    index = np.tensordot(to_index, points - affine(image)[:, 3, None, None, None], 1)
    margin = np.full(3, resize.pixel_mm) / image.GetSpacing() + 1  # the resize's pixels reach so far
    inside = np.ones(squares.shape, bool)
    for n, (axis, length) in enumerate(zip(index, image.GetSize(), strict=True)):
        edge = margin[n] if np.ptp(axis[0]) > 1e-3 else -1e-3  # along k the resize averages nothing
        inside &= (axis > edge) & (axis < length - 1 - edge)
    # A mean over parts of pixels is off by up to an eighth of one on each axis; a wrong place by a half or more.
    error = np.abs(np.tensordot(ramp, points, 1) - squares)[inside]
    assert (error < 0.2 * resize.pixel_mm * np.linalg.norm(ramp) + 1e-2).all()
    assert inside.any() or min(stack.array.shape[1:]) < 2 * max(margin) + 2
