"""The square resize: area means on the way in, bilinear interpolation on the way back."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMixLib.imaging.resize import ResizeToSquare


def test_halving_takes_the_mean_of_two_by_two_pixels():
    array = np.random.default_rng(0).integers(-1000, 1000, (2, 32, 32)).astype(np.int16)
    resize = ResizeToSquare(array.shape[1:], (0.7, 0.7), 16)
    squares = resize.apply(array)
    assert squares.dtype == np.float32
    np.testing.assert_allclose(squares, array.reshape(2, 16, 2, 16, 2).mean((2, 4)), atol=1e-3)
    assert resize.pixel_mm == pytest.approx(1.4)


def test_a_slice_of_the_right_size_stays_as_it_is():
    array = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(ResizeToSquare((16, 16), (1, 1), 16).apply(array), array)


def test_a_flat_slice_is_centred_and_padded_with_air():
    resize = ResizeToSquare((20, 40), (1, 1), 20)
    squares = resize.apply(np.zeros((1, 20, 40)))
    assert resize.pad_mm == (10, 0)
    np.testing.assert_array_equal(squares[0, :, 0], [-1024] * 5 + [0] * 10 + [-1024] * 5)


def test_pixels_become_square_in_mm():
    array = np.zeros((1, 20, 40))
    array[0, 5:15, 10:30] = 1  # 20 mm x 20 mm
    resize = ResizeToSquare(array.shape[1:], (2, 1), 20)
    squares = resize.apply(array)
    assert (resize.extent_mm, resize.pad_mm, resize.pixel_mm) == ((40, 40), (0, 0), 2)
    assert squares[0, 5:15, 5:15].min() == pytest.approx(1)
    assert squares.sum() == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize("shape", [(48, 48), (40, 30), (31, 45), (12, 10)])
def test_a_ramp_comes_back(shape):
    """Interpolation is exact for a linear image but at its border, where there is nothing to interpolate with."""
    rows, columns = np.indices(shape, float)
    resize = ResizeToSquare(shape, (0.8, 0.8), 24)
    back = resize.invert(resize.apply((2 * rows + columns)[None], 0))[0]
    assert back.shape == shape
    inner = slice(4, -4)
    np.testing.assert_allclose(back[inner, inner], (2 * rows + columns)[inner, inner], atol=0.01 * max(shape) + 0.05)


def test_restoring_some_slices_gives_what_restoring_all_gives():
    resize = ResizeToSquare((30, 40), (1, 1), 16)
    maps = np.random.default_rng(0).random((5, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(resize.invert(maps)[2:4], resize.invert(maps[2:4]))


def test_restoring_is_bilinear_interpolation_at_pixel_centres():
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).random((2, 16, 16)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=(32, 32), mode="bilinear")[0]
    np.testing.assert_allclose(ResizeToSquare((32, 32), (0.7, 0.7), 16).invert(maps), expected.numpy(), atol=1e-6)


def test_a_mask_goes_in_and_back():
    rows, columns = np.indices((60, 80))
    mask = ((rows - 30) ** 2 + (columns - 40) ** 2 < 20**2)[None]
    resize = ResizeToSquare((60, 80), (0.9, 0.9), 40)
    back = resize.invert((resize.apply(mask, 0) >= 0.5).astype(np.float32)) >= 0.5
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.97
