"""Masks: read as 0 and 1, and brought to the order of a scan's voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import SAME_VOXEL, AxialGrid
from SAMMixLib.imaging.itk import image_like
from SAMMixLib.imaging.volume import Volume, read_image


def read_mask(path: str | Path, label: int | None = None) -> sitk.Image:
    """Read a mask, uint8 0 and 1: the voxels equal to ``label``, or by default those above 0.

    Raises:
        SAMMixError: as :func:`read_volume`; DICOM (SEG) is not read.
    """
    path = Path(path)
    if not path.is_file():
        raise SAMMixError(f"{path}: no such mask file")
    image, _ = read_image(path)
    array = sitk.GetArrayViewFromImage(image)
    return image_like((array > 0 if label is None else array == label).astype(np.uint8), image)


def mask_on_grid(mask: sitk.Image, reference: sitk.Image) -> np.ndarray:
    """The mask's voxels as uint8 in the order of the reference's array, where both are one physical grid.

    The mask may be stored with its axes in another order or direction; nothing is resampled.

    Raises:
        SAMMixError: the grids are not the same; says how they differ.
    """
    own, grid = AxialGrid.of(mask), AxialGrid.of(reference)
    to_reference = np.linalg.inv(grid.affine) @ own.affine  # mask index -> reference index
    turn = np.rint(to_reference[:3, :3])
    if not np.array_equal(np.abs(turn) @ np.ones(3), np.ones(3)) or abs(np.linalg.det(turn)) != 1:
        raise SAMMixError(f"the mask's axes or spacing are not the volume's: {own} against {grid}")
    size = np.abs(turn) @ own.size
    if not np.array_equal(size, grid.size):
        raise SAMMixError(f"the mask's size is not the volume's: {own} against {grid}")
    expected = np.eye(4)
    expected[:3, :3] = turn
    expected[:3, 3] = np.where(turn.sum(axis=1) < 0, size - 1, 0)
    shift = np.abs((to_reference - expected) @ own.corners).max()
    if shift > SAME_VOXEL:
        raise SAMMixError(f"the mask lies up to {shift:.3g} voxels off the volume's grid: {own} against {grid}")
    axes = np.abs(turn).argmax(axis=1)  # the mask axis that runs along each reference axis
    array = sitk.GetArrayViewFromImage(mask).transpose([2 - axes[axis] for axis in (2, 1, 0)])
    flips = tuple(slice(None, None, int(turn[axis].sum())) for axis in (2, 1, 0))
    return np.array(array[flips], np.uint8, order="C")  # a copy: the view dies with the mask image


def axial_mask(file: str | Path, volume: Volume, label: int | None = None) -> np.ndarray:
    """The mask of a file, uint8 0 and 1, as [k, j, i] on the axial stack of ``volume``.

    Raises:
        SAMMixError: as :func:`read_mask` and :func:`mask_on_grid`.
    """
    try:
        on_grid = mask_on_grid(read_mask(file, label), volume.image)
    except SAMMixError as error:
        raise SAMMixError(f"{file} for {volume.path}: {error}") from None
    return np.ascontiguousarray(volume.grid.to_stack(on_grid))
