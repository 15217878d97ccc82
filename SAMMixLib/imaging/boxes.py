"""Where the S x S frame lies: its boxes on the slice's own pixels, and its maps in physical space.

Two kinds of box: *edges* ``(x0, y0, x1, y1)``, real numbers in pixels of the frame, which SAM takes (see
:mod:`SAMMixLib.method.prompts`), and *bounds* ``(i0, j0, i1, j1)``, the first and last pixel of the slice at full
resolution, both included, which people draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from SAMMixLib.imaging.resize import Frame
from SAMMixLib.imaging.volume import AxialStack, axial_order

Edges = tuple[float, float, float, float]
Bounds = tuple[int, int, int, int]


def frame_edges(bounds: Sequence[float], frame: Frame) -> Edges:
    """The edges in the frame of pixel bounds of the slice."""
    i0, j0, i1, j1 = bounds
    x0, x1 = ((i * frame.spacing[1] + frame.pad_mm[1]) / frame.pixel_mm for i in (i0, i1 + 1))
    y0, y1 = ((j * frame.spacing[0] + frame.pad_mm[0]) / frame.pixel_mm for j in (j0, j1 + 1))
    return x0, y0, x1, y1


def pixel_bounds(edges: Sequence[float], frame: Frame) -> Bounds:
    """The pixel bounds of the slice nearest to edges in the frame, at least one pixel of it.

    The way back from :func:`frame_edges` gives the bounds that went in.
    """
    x0, y0, x1, y1 = edges
    i0, i1 = (round((x * frame.pixel_mm - frame.pad_mm[1]) / frame.spacing[1]) for x in (x0, x1))
    j0, j1 = (round((y * frame.pixel_mm - frame.pad_mm[0]) / frame.spacing[0]) for y in (y0, y1))
    rows, columns = frame.shape
    i0, j0 = min(max(i0, 0), columns - 1), min(max(j0, 0), rows - 1)
    return i0, j0, max(i0, min(i1, columns) - 1), max(j0, min(j1, rows) - 1)


def frame_image(maps: np.ndarray, frame: Frame, stack: AxialStack) -> sitk.Image:
    """Maps of the frame ``[k, S, S]``, one for each slice of `stack`, as an image exactly where the frame lies.

    Its axes are i, j and k of the stack, whatever their order in the file; the padding of a slice that is not square
    lies outside the scan.
    """
    axes, flips = axial_order(np.reshape(stack.reference.GetDirection(), (3, 3)))
    signs = np.array([flip.step for flip in flips])
    sizes = stack.reference.GetSize()
    corner = [0.0, 0.0, 0.0]
    for axis, sign in zip(axes, signs, strict=True):
        corner[axis] = 0.0 if sign > 0 else sizes[axis] - 1.0
    # Columns k, j, i: the unit vector of each axis of the stack.
    directions = np.reshape(stack.reference.GetDirection(), (3, 3))[:, axes] * signs
    first = np.array(stack.reference.TransformContinuousIndexToPhysicalPoint(corner))
    for axis in (0, 1):  # from the centre of the slice's first pixel to that of the frame's
        shift = frame.pixel_mm / 2 - frame.pad_mm[axis] - frame.spacing[axis] / 2
        first += shift * directions[:, 1 + axis]
    image = sitk.GetImageFromArray(maps)
    image.SetSpacing((frame.pixel_mm, frame.pixel_mm, stack.spacing[0]))
    image.SetDirection(directions[:, ::-1].ravel())
    image.SetOrigin(first)
    return image
