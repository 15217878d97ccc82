"""Odd files made from the phantom, as users have them."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.data.phantom import Phantom, make_phantom
from SAMMixLib.imaging.grid import RAS_TO_LPS, AxialGrid
from SAMMixLib.imaging.nifti import NIFTI1, TYPES

CODES = {np.dtype(name): code for code, name in TYPES.items()}


@cache
def phantom() -> Phantom:
    """A small one, its slices 15 mm apart; not to be written."""
    return make_phantom(0, (96, 96, 14), (3.875, 3.875, 15.0))


def hu() -> np.ndarray:
    return sitk.GetArrayFromImage(phantom().ct)


def to_ras(image: sitk.Image) -> np.ndarray:
    return RAS_TO_LPS @ AxialGrid.of(image).affine


def write_nifti(path: Path, array: np.ndarray, layout=NIFTI1, order: str = "<", packed=None, **fields) -> Path:
    """A NIfTI file field by field; by default of the phantom's grid, in the sform alone."""
    header = np.zeros((), layout.newbyteorder(order))
    header["sizeof_hdr"], header["magic"] = layout.itemsize, b"n+1" if layout is NIFTI1 else b"n+2\0\r\n\032\n"
    header["dim"] = [3, *array.shape[::-1], 1, 1, 1, 1]
    header["pixdim"] = [1, *phantom().ct.GetSpacing(), 1, 1, 1, 1]
    header["datatype"], header["bitpix"] = CODES[array.dtype], 8 * array.dtype.itemsize
    header["vox_offset"] = layout.itemsize + 4
    header["sform_code"], header["srow"] = 1, to_ras(phantom().ct)[:3]
    for name, value in fields.items():
        header[name] = value
    content = header.tobytes() + bytes(4) + array.astype(array.dtype.newbyteorder(order)).tobytes()
    packed = path.name.endswith(".gz") if packed is None else packed
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def segmentation(path: Path, array: np.ndarray, grid: sitk.Image, names: list[tuple[str, int, int, str]]) -> Path:
    """A ``.seg.nrrd`` as Slicer writes it: [z, y, x] or [z, y, x, layers], and (name, value, layer, tags) of each."""
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.CopyInformation(grid)
    for n, (name, value, layer, tags) in enumerate(names):
        for key, said in (("ID", f"s{n}"), ("Name", name), ("LabelValue", value), ("Layer", layer), ("Tags", tags)):
            image.SetMetaData(f"Segment{n}_{key}", str(said))
    sitk.WriteImage(image, str(path), True)
    return path
