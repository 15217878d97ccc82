"""The square frame that every slice is put in before a network sees it, and the way back.

An axial slice is padded to a square in millimetres (centred), then brought to S x S pixels. Where this reduces the
slice, each output pixel is the mean over the area that it covers (512 to 256: the mean of 2 x 2 pixels), so nothing
aliases; where it enlarges the slice, pixels are interpolated linearly. Training, evaluation and segmentation all use
this one function, so that a model sees in use what it saw in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

AIR_HU = -1024.0
"""What surrounds a slice that is not square."""


@dataclass(frozen=True)
class Frame:
    """How slices of one shape and spacing stand in an S x S square.

    ``shape`` is (rows, columns) of the slice, ``spacing`` its (row, column) spacing in mm, ``size`` is S.
    Pixel centres lie at half pixels: output row y covers ``(y .. y + 1) * side / S - pad_mm`` of the slice.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    size: int

    @property
    def extent_mm(self) -> tuple[float, float]:
        """Height and width of the slice in mm."""
        return self.shape[0] * self.spacing[0], self.shape[1] * self.spacing[1]

    @property
    def pad_mm(self) -> tuple[float, float]:
        """What is added above (and below), and left (and right), in mm."""
        side = max(self.extent_mm)
        return (side - self.extent_mm[0]) / 2, (side - self.extent_mm[1]) / 2

    @property
    def pixel_mm(self) -> float:
        """The side of one pixel of the S x S slice in mm; its pixels are square."""
        return max(self.extent_mm) / self.size

    @cached_property
    def _reducers(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        return self._axis(0, _covering), self._axis(1, _covering)

    @cached_property
    def _restorers(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        return self._axis(0, _restoring), self._axis(1, _restoring)

    def _axis(self, axis: int, weights) -> sparse.csr_matrix:
        step = self.pixel_mm / self.spacing[axis]
        return weights(self.shape[axis], self.size, step, self.pad_mm[axis] / self.spacing[axis])

    def reduce(self, array: np.ndarray, fill: float) -> np.ndarray:
        """Slices [k, rows, columns] of any real type -> float32 [k, S, S]; the padding is ``fill``.

        For a mask take ``fill`` 0 and keep what is at least 0.5: half of the pixel's area.
        """
        if self.shape == (self.size, self.size) and self.spacing[0] == self.spacing[1]:
            return array.astype(np.float32)
        rows, columns = self._reducers
        out = _separable(rows, columns, array, -fill)
        out += np.float32(fill)
        return out

    def restore(self, probabilities: np.ndarray) -> np.ndarray:
        """Maps [k, S, S] -> float32 [k, rows, columns] by bilinear interpolation, without the padding.

        The inverse of :meth:`reduce` in geometry. Any k will do, so restore only the slices that hold something.
        """
        return _separable(*self._restorers, probabilities, 0.0)


def frame_slices(
    array: np.ndarray, spacing: tuple[float, float, float], size: int, fill: float = AIR_HU
) -> tuple[np.ndarray, Frame]:
    """Slices [k, j, i] with ``spacing`` (k, j, i) in mm -> float32 [k, S, S] and the :class:`Frame` to go back."""
    frame = Frame(array.shape[1:], (spacing[1], spacing[2]), size)
    return frame.reduce(array, fill), frame


def _separable(rows: sparse.csr_matrix, columns: sparse.csr_matrix, array: np.ndarray, offset: float) -> np.ndarray:
    """``rows @ (slice + offset) @ columns.T`` for each slice of ``array``, float32."""
    out = np.empty((len(array), rows.shape[0], columns.shape[0]), np.float32)
    enlarging = rows.shape[0] > rows.shape[1]  # then the rows come last, where arrays are small for the transposing
    for result, pixels in zip(out, array, strict=True):
        pixels = pixels.astype(np.float32)
        if offset:
            pixels += np.float32(offset)
        if enlarging:
            result[...] = rows @ np.ascontiguousarray((columns @ np.ascontiguousarray(pixels.T)).T)
        else:
            result[...] = (columns @ np.ascontiguousarray((rows @ pixels).T)).T
    return out


def _covering(length: int, size: int, step: float, pad: float) -> sparse.csr_matrix:
    """[size, length]: the share of each input pixel in each output pixel, which is ``step`` input pixels wide."""
    if step < 1:
        centres = (np.arange(size) + 0.5) * step - pad
        inside = (centres > 0) & (centres < length)
        return sparse.diags_array(inside.astype(np.float32)).tocsr() @ _interpolating(centres - 0.5, length)
    edges = np.arange(size + 1) * step - pad
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(length)
    overlap = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None) / step
    overlap[overlap < 1e-6] = 0
    return sparse.csr_matrix(overlap.astype(np.float32))


def _restoring(length: int, size: int, step: float, pad: float) -> sparse.csr_matrix:
    """[length, size]: linear interpolation at the centre of each original pixel."""
    return _interpolating((np.arange(length) + 0.5 + pad) / step - 0.5, size)


def _interpolating(positions: np.ndarray, length: int) -> sparse.csr_matrix:
    """[len(positions), length]: linear interpolation at ``positions`` (in pixels), the border value outside."""
    positions = np.clip(positions, 0, length - 1)
    low = np.minimum(positions.astype(int), max(length - 2, 0))
    weight = positions - low
    entry = np.arange(len(positions))
    values = np.concatenate([1 - weight, weight]).astype(np.float32)
    columns = np.concatenate([low, np.minimum(low + 1, length - 1)])
    return sparse.csr_matrix((values, (np.tile(entry, 2), columns)), shape=(len(positions), length))
