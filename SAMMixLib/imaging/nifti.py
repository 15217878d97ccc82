"""The NIfTI header by itself: what ITK repairs or passes over in silence."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import MAX_SHEAR, RAS_TO_LPS, SAME_VOXEL, AxialGrid, HasGrid


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What ITK repairs or passes over in silence in a NIfTI-1 file."""

    qform_code: int
    sform_code: int
    sform: np.ndarray  # [4, 4] voxel index -> LPS mm
    broken: np.ndarray  # flat indices of voxels that are NaN or infinite


def look_into_nifti(path: Path) -> NiftiHeader:
    """Check the raw file: ITK makes a bad spacing 1, broken voxels 0, and fills a truncated file with zeros."""
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            return _scan_nifti(path, stream)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise SAMMixError(f"{path}: the file is truncated or damaged (gzip); copy it again") from None
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be read ({error.strerror})") from None


def check_nifti_grid(path: Path, header: NiftiHeader, grid: HasGrid) -> list[str]:
    """Hold the sform against the grid that ITK made of the header: ITK falls back on the qform without a word."""
    if header.sform_code <= 0:
        if header.qform_code <= 0:
            return [f"{path}: the header gives no orientation (qform and sform codes are 0); check left and right"]
        return []
    check_axes(path, header.sform)
    apart = np.linalg.norm(((header.sform - AxialGrid.of(grid).affine) @ AxialGrid.of(grid).corners)[:3], axis=0).max()
    if apart > SAME_VOXEL * min(grid.GetSpacing()):
        return [
            f"{path}: its sform lies up to {apart:.2g} mm off the grid that ITK and Slicer use, as does this program"
        ]
    return []


def _scan_nifti(path: Path, stream: BinaryIO | gzip.GzipFile) -> NiftiHeader:
    header = stream.read(348)
    order = {b"\x5c\x01\x00\x00": "<", b"\x00\x00\x01\x5c": ">"}.get(header[:4])
    if order is None or len(header) < 348:
        raise SAMMixError(f"{path}: not a NIfTI-1 file, whatever its suffix says")
    rank, *shape = struct.unpack_from(order + "8h", header, 40)
    datatype, bits = struct.unpack_from(order + "2h", header, 70)
    pixdim = struct.unpack_from(order + "8f", header, 76)
    (start,) = struct.unpack_from(order + "f", header, 108)
    qform_code, sform_code = struct.unpack_from(order + "2h", header, 252)
    rows = np.reshape(struct.unpack_from(order + "12f", header, 280), (3, 4))
    check_spacing(path, pixdim[1 : 1 + min(rank, 3)])
    if not len(header) <= start < math.inf:
        raise SAMMixError(f"{path}: the voxels cannot start at byte {start:g}, as the header says; repair the header")

    count = math.prod(shape[:rank])
    real = {16: np.dtype(order + "f4"), 64: np.dtype(order + "f8")}.get(datatype)
    stream.read(int(start) - len(header))
    length, broken = 0, [np.empty(0, int)]
    while chunk := stream.read(1 << 22):
        if real:
            values = np.frombuffer(chunk, real, len(chunk) // real.itemsize)
            broken.append(np.flatnonzero(~np.isfinite(values)) + length // real.itemsize)
        length += len(chunk)
    if length < count * bits // 8:
        raise SAMMixError(
            f"{path}: the file is truncated: {length} of {count * bits // 8} bytes of voxels; copy it again"
        )
    indices = np.concatenate(broken)
    return NiftiHeader(qform_code, sform_code, RAS_TO_LPS @ np.vstack([rows, [0, 0, 0, 1]]), indices[indices < count])


def check_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        millimetres = " x ".join(f"{value:g}" for value in spacing)
        raise SAMMixError(f"{path}: the voxel spacing is {millimetres} mm; repair the header")


def check_axes(path: Path, affine: np.ndarray) -> None:
    """Refuse what no image grid of ITK can hold: axes that are not at right angles to each other."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not lengths.all():
        raise SAMMixError(f"{path}: the orientation in the header is not valid (zero or not a number)")
    axes = affine[:3, :3] / lengths
    lean = np.abs(axes.T @ axes - np.eye(3)).max()
    if lean > 1 - MAX_SHEAR:
        raise SAMMixError(f"{path}: the orientation in the header is not invertible; repair the header")
    if lean > MAX_SHEAR:
        degrees = math.degrees(math.asin(lean))
        raise SAMMixError(f"{path}: the axes are sheared by {degrees:.1f} degrees (gantry tilt); resample it first")
