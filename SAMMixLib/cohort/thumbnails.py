"""Three planes of a mask as one small picture, with the CT under it or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

SIDE = 96  # pixels of each plane
WINDOW = (-140.0, 260.0)  # HU
TINT = np.array([232, 96, 72], np.float32)


def write_thumbnail(volume, mask: sitk.Image, path: Path, with_ct: bool) -> None:
    """Axial, coronal and sagittal plane side by side, as PNG.

    Without the CT the planes are projections of the mask: how thick it is along the line of sight. With it, they are
    cuts through the middle of the mask.
    """
    from matplotlib.image import imsave

    labels = sitk.DICOMOrient(mask, "LPS")
    spacing = labels.GetSpacing()[::-1]
    inside = sitk.GetArrayViewFromImage(labels) > 0
    if with_ct:
        hu = sitk.GetArrayViewFromImage(sitk.DICOMOrient(volume.image, "LPS"))
        planes = [_cut(hu, inside, axis) for axis in range(3)]
    else:
        planes = [_projection(inside, axis, spacing[axis]) for axis in range(3)]
    tiles = []
    for axis, plane in enumerate(planes):
        steps = [step for other, step in enumerate(spacing) if other != axis]
        tiles.append(_tile(plane if axis == 0 else plane[::-1], steps))
    imsave(path, np.concatenate(tiles, axis=1), format="png", pil_kwargs={"optimize": True})


def _middle(inside: np.ndarray, axis: int) -> int:
    """Where the mask is largest along an axis, or the middle of the scan."""
    areas = inside.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def _cut(hu: np.ndarray, inside: np.ndarray, axis: int) -> np.ndarray:
    k = _middle(inside, axis)
    plane, mask = np.take(hu, k, axis), np.take(inside, k, axis)
    low, high = WINDOW
    grey = np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)[..., None] * 255
    return np.where(mask[..., None], 0.6 * grey + 0.4 * TINT, grey)


def _projection(inside: np.ndarray, axis: int, step: float) -> np.ndarray:
    thickness = inside.sum(axis=axis, dtype=np.float32) * step
    return (thickness / max(float(thickness.max()), 1.0))[..., None] ** 0.7 * TINT


def _tile(plane: np.ndarray, steps: list[float]) -> np.ndarray:
    """The plane in a black square of SIDE pixels, in its true proportions."""
    height, width = plane.shape[0] * steps[0], plane.shape[1] * steps[1]
    scale = SIDE / max(height, width)
    zoom = (scale * steps[0], scale * steps[1], 1)
    small = ndimage.zoom(plane, zoom, order=1, grid_mode=True, mode="nearest")[:SIDE, :SIDE]
    tile = np.zeros((SIDE, SIDE, 3), np.uint8)
    top, left = (SIDE - small.shape[0]) // 2, (SIDE - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = np.clip(small, 0, 255)
    return tile
