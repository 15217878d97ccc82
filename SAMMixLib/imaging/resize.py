"""An axial slice as the S x S square that a network sees, and back.

The slice is padded to a square in millimetres (centred), then brought to S x S pixels. Where this reduces the
slice, each output pixel is the mean over the area that it covers (512 to 256: the mean of 2 x 2 pixels), so nothing
aliases; where it enlarges the slice, pixels are interpolated linearly. Training, evaluation and segmentation all use
this one transform, so that a model sees in use what it saw in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from SAMMixLib.imaging.boxes import EdgeBox, PixelBox
from SAMMixLib.imaging.hounsfield import AIR


@dataclass(frozen=True)
class ResizeToSquare:
    """Slices of one shape and spacing to S x S squares and back, like SAM's own ``ResizeLongestSide``.

    Pixel centres lie at half pixels: row y of the square covers ``(y .. y + 1) * pixel_mm - pad_mm[0]`` of the slice.

    Args:
        shape: rows and columns of the slice.
        spacing: mm between its rows and between its columns.
        size: S.

    Example:
        >>> resize = ResizeToSquare((20, 40), (1.0, 1.0), 20)
        >>> resize.apply(np.zeros((3, 20, 40))).shape, resize.pixel_mm
        ((3, 20, 20), 2.0)
        >>> resize.apply_boxes([PixelBox(0, 0, 39, 19)])
        [EdgeBox(x0=0.0, y0=5.0, x1=20.0, y1=15.0)]
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

    def apply(self, slices: np.ndarray, fill: float = AIR) -> np.ndarray:
        """Slices [k, rows, columns] of any real type -> float32 [k, S, S]; the padding is ``fill``."""
        if self.shape == (self.size, self.size) and self.spacing[0] == self.spacing[1]:
            return slices.astype(np.float32)
        rows, columns = self._reducers
        out = _separable(rows, columns, slices, -fill)
        out += np.float32(fill)
        return out

    def apply_mask(self, masks: np.ndarray) -> np.ndarray:
        """Masks [k, rows, columns] -> bool [k, S, S]: at least half of the pixel's area."""
        return self.apply(masks, 0.0) >= 0.5

    def invert(self, maps: np.ndarray) -> np.ndarray:
        """Maps [k, S, S] -> float32 [k, rows, columns] by bilinear interpolation, without the padding.

        Any k will do, so invert only the slices that hold something.
        """
        return _separable(*self._restorers, maps, 0.0)

    def apply_boxes(self, boxes: Iterable[Sequence[float]]) -> list[EdgeBox]:
        """The sides in the square of boxes of pixels (:class:`PixelBox`) of the slice."""
        (top, left), (row, column) = self.pad_mm, self.spacing
        return [
            EdgeBox(
                (i0 * column + left) / self.pixel_mm,
                (j0 * row + top) / self.pixel_mm,
                ((i1 + 1) * column + left) / self.pixel_mm,
                ((j1 + 1) * row + top) / self.pixel_mm,
            )
            for i0, j0, i1, j1 in boxes
        ]

    def invert_boxes(self, boxes: Iterable[Sequence[float]]) -> list[PixelBox]:
        """The pixels of the slice nearest to boxes in the square (:class:`EdgeBox`), at least one pixel each.

        The inverse of :meth:`apply_boxes`: it gives the pixels that went in.
        """
        (rows, columns), found = self.shape, []
        for x0, y0, x1, y1 in boxes:
            i0, i1 = (round((x * self.pixel_mm - self.pad_mm[1]) / self.spacing[1]) for x in (x0, x1))
            j0, j1 = (round((y * self.pixel_mm - self.pad_mm[0]) / self.spacing[0]) for y in (y0, y1))
            i0, j0 = min(max(i0, 0), columns - 1), min(max(j0, 0), rows - 1)
            found.append(PixelBox(i0, j0, max(i0, min(i1, columns) - 1), max(j0, min(j1, rows) - 1)))
        return found


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
