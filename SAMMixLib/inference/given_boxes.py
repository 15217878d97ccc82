"""Boxes that somebody gave, in pixels of a slice at full resolution: what SAM is prompted with, and where masks end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.boxes import PixelBox
from SAMMixLib.imaging.resize import ResizeToSquare


def given_edges(boxes: Sequence[PixelBox], resize: ResizeToSquare, k: int) -> Tensor:
    """The boxes of slice `k` in the square, [n, 4].

    Raises:
        SAMMixError: a box is not inside the slice.
    """
    rows, columns = resize.shape
    for i0, j0, i1, j1 in boxes:
        if not (0 <= i0 <= i1 < columns and 0 <= j0 <= j1 < rows):
            raise SAMMixError(
                f"slice {k}: the box {i0}, {j0} to {i1}, {j1} is not inside its {columns} x {rows} pixels"
            )
    return torch.tensor(resize.apply_boxes(boxes)).reshape(-1, 4)


def inside_moved_sides(boxes: Sequence[PixelBox], of_cam: Sequence[PixelBox], shape: tuple[int, int]) -> np.ndarray:
    """Bool [rows, columns]: what the sides of the boxes leave that somebody moved, so that no box of the CAM has them.

    Example:
        >>> inside_moved_sides([PixelBox(0, 1, 1, 2)], [PixelBox(0, 1, 3, 3)], (4, 4)).astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    """
    rows, columns = shape
    inside = np.zeros(shape, bool)
    for box in boxes:
        i0, j0, i1, j1 = (
            border if any(abs(side - found[n]) <= 1 for found in of_cam) else side
            for n, (side, border) in enumerate(zip(box, (0, 0, columns, rows), strict=True))
        )
        inside[j0 : j1 + 1, i0 : i1 + 1] = True
    return inside
