"""Slices and curves as small pictures, without Qt: uint8 [rows, columns, 3], and bytes that Qt reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = (-135.0, 215.0)  # HU of black and white: soft tissue
Color = tuple[int, int, int]


def slice_picture(
    image: np.ndarray,
    outlines: Sequence[tuple[np.ndarray, Color]] = (),
    size: int = 48,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """A slice [h, w] in HU with masks [h, w] drawn as outlines, the longer side of `size` pixels.

    ``spacing`` is mm (row, column): the picture has the body's proportions.
    """
    extent = np.array(image.shape) * spacing
    height, width = np.maximum(1, np.rint(size * extent / extent.max()).astype(int))
    rows = (np.arange(height) + 0.5) * image.shape[0] // height
    columns = (np.arange(width) + 0.5) * image.shape[1] // width
    grid = np.ix_(rows.astype(int), columns.astype(int))
    low, high = WINDOW
    grey = np.clip((image[grid] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    for mask, color in outlines:
        picture[outline(mask[grid] > 0)] = color
    return picture


def outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask, bool [h, w], that touch a pixel beside it."""
    inside = np.pad(mask, 1)
    return mask & ~(inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:])


def ppm(picture: np.ndarray) -> bytes:
    """The picture as a PPM file, which every Qt reads by itself."""
    height, width, _ = picture.shape
    return b"P6\n%d %d\n255\n" % (width, height) + np.ascontiguousarray(picture, np.uint8).tobytes()
