"""NIfTI-1 and NIfTI-2: read as the standard says it, and written so that every program lays a mask on its scan.

The grid is that of the sform where its code is set, else of the qform, else of pixdim alone: the order of the standard
and of nibabel. Where two of them contradict each other the file is read and the contradiction named, left and right
above all. See https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields.
"""

from __future__ import annotations

import gzip
import math
import zlib
from contextlib import closing
from io import BufferedIOBase
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import MAX_SHEAR, RAS_TO_LPS, SAME_VOXEL, AxialGrid
from SAMMixLib.imaging.itk import HEADER_KEY

OURS = b"SAMMix"
"""What the field ``descrip`` of the files that we write says."""

ByteOrder = Literal["<", ">"]
MAX_VOXELS = 1 << 31
MAX_OFFSET = 1 << 28  # bytes of header extensions
CHUNK = 1 << 22
ROUNDING = 1e-4  # of shear: less than 0.05 mm over 500 mm
UNITS_MM = {1: 1e3, 2: 1.0, 3: 1e-3}  # xyzt_units & 7: metre, millimetre, micrometre
UNIT_NAMES = {1: "metres", 3: "micrometres"}
VOXEL_MM = (0.05, 50.0)  # what a voxel of a CT may measure
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
NO_SCALARS = {
    1: "single bits", 32: "complex numbers, not HU", 128: "of 3 values each (colour); give one 3D CT volume",
    1536: "128-bit numbers", 1792: "complex numbers, not HU", 2048: "complex numbers, not HU",
    2304: "of 4 values each (colour); give one 3D CT volume",
}  # fmt: skip

NIFTI1 = np.dtype([
    ("sizeof_hdr", "i4"), ("unused", "S36"), ("dim", "i2", 8), ("intent_p", "f4", 3), ("intent_code", "i2"),
    ("datatype", "i2"), ("bitpix", "i2"), ("slice_start", "i2"), ("pixdim", "f4", 8), ("vox_offset", "f4"),
    ("scl_slope", "f4"), ("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"), ("xyzt_units", "u1"),
    ("cal_max", "f4"), ("cal_min", "f4"), ("slice_duration", "f4"), ("toffset", "f4"), ("glmax", "i4"),
    ("glmin", "i4"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i2"), ("sform_code", "i2"),
    ("quatern", "f4", 3), ("qoffset", "f4", 3), ("srow", "f4", (3, 4)), ("intent_name", "S16"), ("magic", "S4"),
])  # fmt: skip
NIFTI2 = np.dtype([
    ("sizeof_hdr", "i4"), ("magic", "S8"), ("datatype", "i2"), ("bitpix", "i2"), ("dim", "i8", 8),
    ("intent_p", "f8", 3), ("pixdim", "f8", 8), ("vox_offset", "i8"), ("scl_slope", "f8"), ("scl_inter", "f8"),
    ("cal_max", "f8"), ("cal_min", "f8"), ("slice_duration", "f8"), ("toffset", "f8"), ("slice_start", "i8"),
    ("slice_end", "i8"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i4"), ("sform_code", "i4"),
    ("quatern", "f8", 3), ("qoffset", "f8", 3), ("srow", "f8", (3, 4)), ("slice_code", "i4"), ("xyzt_units", "i4"),
    ("intent_code", "i4"), ("intent_name", "S16"), ("dim_info", "u1"), ("unused", "S15"),
])  # fmt: skip
SIZES = {NIFTI1.itemsize: NIFTI1, NIFTI2.itemsize: NIFTI2}


def read_nifti(path: Path) -> tuple[sitk.Image, list[str]]:
    """Read a NIfTI file, gzipped or not, whatever its suffix says.

    Returns:
        the 3D image, with its header under :data:`HEADER_KEY`; and warnings about the header, one line each.

    Raises:
        SAMMixError: not a NIfTI file, damaged, truncated, not 3D and scalar, or its grid is sheared or not valid.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with closing(gzip.GzipFile(fileobj=raw) if packed else raw) as stream:
                header, order = _read_header(path, stream)
                _shape(path, header)
                grid, warnings = grid_of(path, header)
                voxels = _read_voxels(path, stream, header, order)
                if packed:
                    _read_to_end(stream)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise SAMMixError(f"{path}: the file is truncated or damaged (gzip); copy it again") from None
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be read ({error.strerror or error})") from None
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(grid.voxel_mm)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction.ravel())
    image.SetMetaData(HEADER_KEY, _as_nifti1(header).tobytes().hex())
    return image, warnings


def write_nifti(image: sitk.Image, path: Path) -> None:
    """Write an image, gzipped where the name ends in ``.gz``.

    Where the image, as a mask's, came of a NIfTI scan (see :data:`HEADER_KEY`) the file has its sform, qform, codes,
    pixdim and units, bit for bit, so that every program lays it where it lays that scan.

    Raises:
        OSError: from the disk.
    """
    header = _header_for(image)
    voxels = sitk.GetArrayViewFromImage(image)
    codes = {np.dtype(name): code for code, name in TYPES.items()}
    header["datatype"], header["bitpix"] = codes[voxels.dtype], 8 * voxels.dtype.itemsize
    header["descrip"] = OURS
    content = header.tobytes() + bytes(4)
    with path.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as stream:
                stream.write(content)
                stream.write(voxels.tobytes())
        else:
            raw.write(content)
            raw.write(voxels.tobytes())


def grid_of(path: Path, header: np.ndarray) -> tuple[AxialGrid, list[str]]:
    """The grid that a header means, in mm, and what contradicts it.

    Raises:
        SAMMixError: no usable grid, or a sheared one.
    """
    scale, warnings = _unit_mm(path, header)
    size = tuple(int(n) for n in header["dim"][1:4])
    steps, form = np.abs(header["pixdim"][1:4].astype(float)), header["srow"].astype(float)
    sform, qform = np.eye(4), None
    sform[:3] = form
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    steps_known = np.isfinite(steps).all() and (steps > 0).all()
    if has_qform and steps_known:
        qform = _qform(header, steps)
    if has_sform and _usable(sform):
        affine = sform
        warnings += _contradictions(path, sform, qform, steps if steps_known else None, size)
    elif has_qform and qform is not None:
        affine = qform
        if has_sform:
            warnings.append(f"{path}: its sform is not valid (zero or not a number); the qform counts")
    elif has_sform:
        raise SAMMixError(f"{path}: the orientation in the header is not valid (zero or not a number)")
    else:
        millimetres = " x ".join(f"{value:g}" for value in header["pixdim"][1:4])
        if not steps_known:
            raise SAMMixError(f"{path}: the voxel spacing is {millimetres} mm; repair the header")
        if has_qform:
            raise SAMMixError(f"{path}: the orientation in the header is not valid (its quaternion)")
        affine = RAS_TO_LPS @ np.diag([*steps, 1.0])
        warnings.append(f"{path}: the header gives no orientation (qform and sform codes are 0); check left and right")
    affine = RAS_TO_LPS @ np.diag([scale, scale, scale, 1.0]) @ affine
    return _upright(path, affine, size, warnings), warnings


def _upright(path: Path, affine: np.ndarray, size: tuple[int, ...], warnings: list[str]) -> AxialGrid:
    """The grid of an affine, with the shear that rounding left taken out of its directions."""
    check_axes(path, affine)
    grid = AxialGrid.from_affine(affine, size)
    if grid.shear < 1e-9:
        return grid
    if grid.shear > ROUNDING:
        warnings.append(
            f"{path}: its axes are sheared by {math.degrees(math.asin(grid.shear)):.2g} degrees, as through rounding; "
            "they count as upright"
        )
    left, _, right = np.linalg.svd(grid.direction)
    return AxialGrid(left @ right, grid.voxel_mm, grid.origin, grid.size)  # the nearest rotation


def check_axes(path: Path, affine: np.ndarray) -> None:
    """Refuse what no image grid can hold: axes that are not at right angles to each other."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not lengths.all():
        raise SAMMixError(f"{path}: the orientation in the header is not valid (zero or not a number)")
    axes = affine[:3, :3] / lengths
    lean = np.abs(axes.T @ axes - np.eye(3)).max()
    if lean > 1 - MAX_SHEAR:
        raise SAMMixError(f"{path}: the orientation in the header is not invertible; repair the header")
    if lean > MAX_SHEAR:
        degrees = math.degrees(math.asin(lean))
        raise SAMMixError(f"{path}: the axes are sheared by {degrees:.3g} degrees (gantry tilt); resample it first")


def _usable(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and np.linalg.norm(affine[:3, :3], axis=0).all())


def _unit_mm(path: Path, header: np.ndarray) -> tuple[float, list[str]]:
    """mm in a unit of the header; a unit that makes the voxels no voxels of a CT is not believed, and named."""
    unit = int(header["xyzt_units"]) & 7
    scale = UNITS_MM.get(unit, 1.0)
    if scale == 1.0:
        return scale, []
    steps = np.abs(header["pixdim"][1:4].astype(float))
    if int(header["sform_code"]) > 0:
        steps = np.linalg.norm(header["srow"].astype(float)[:, :3], axis=0)
    low, high = VOXEL_MM

    def plausible(lengths: np.ndarray) -> bool:
        return bool(np.isfinite(lengths).all() and (lengths >= low).all() and (lengths <= high).all())

    if plausible(steps) and not plausible(steps * scale):
        lengths = " x ".join(f"{value:g}" for value in steps)
        return 1.0, [
            f"{path}: its header measures in {UNIT_NAMES[unit]}, but no CT has voxels of {lengths} of these; "
            "they count as mm"
        ]
    return scale, []


def _qform(header: np.ndarray, steps: np.ndarray) -> np.ndarray | None:
    """[4, 4] voxel index -> RAS in the header's unit (method 2 of the standard), or None: the quaternion is none."""
    b, c, d = header["quatern"].astype(float)
    square = b * b + c * c + d * d
    if not np.isfinite([*header["quatern"], *header["qoffset"]]).all() or square > 1.001:
        return None
    if square > 1:
        b, c, d = np.array([b, c, d]) / math.sqrt(square)
    a = math.sqrt(max(0.0, 1 - min(square, 1.0)))
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    mirror = -1.0 if header["pixdim"][0] < 0 else 1.0
    qform = np.eye(4)
    qform[:3, :3] = rotation * steps * [1, 1, mirror]
    qform[:3, 3] = header["qoffset"]
    return qform


def _contradictions(
    path: Path, sform: np.ndarray, qform: np.ndarray | None, steps: np.ndarray | None, size: tuple[int, ...]
) -> list[str]:
    """What the sform, which counts, has against it."""
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if qform is not None:
        grid = AxialGrid.from_affine(sform, size)
        try:
            apart = grid.apart_from(AxialGrid.from_affine(qform, size))
        except np.linalg.LinAlgError:
            return []
        if apart <= SAME_VOXEL:
            return []
        cosines = ((sform[:3, :3] / lengths) * qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0)).sum(axis=0)
        mirrored = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
        leftright = int(np.abs(sform[0, :3] / lengths).argmax())
        if mirrored or cosines[leftright] < 0:
            return [
                f"{path}: its sform and its qform contradict each other: left and right are swapped between them; "
                "the sform counts, check left and right"
            ]
        return [f"{path}: its sform and its qform lie up to {apart:.2g} voxels apart; the sform counts"]
    if steps is None or np.abs(steps / lengths - 1).max() > 0.01:
        spacing = " x ".join(f"{value:.3g}" for value in lengths)
        said = "not valid" if steps is None else " x ".join(f"{value:.3g}" for value in steps)
        return [f"{path}: its pixdim is {said}, its sform says {spacing}; the sform counts"]
    return []


def _read_header(path: Path, stream: BufferedIOBase) -> tuple[np.ndarray, ByteOrder]:
    """The header as a numpy record, and the byte order of the file, ``<`` or ``>``."""
    start = stream.read(4)
    for size, layout in SIZES.items():
        for order in get_args(ByteOrder):
            if len(start) == 4 and int(np.frombuffer(start, order + "i4")[0]) == size:
                content = start + stream.read(size - 4)
                if len(content) < size:
                    raise SAMMixError(f"{path}: the file is truncated in its header; copy it again")
                header = np.frombuffer(content, layout.newbyteorder(order)).astype(layout)[0]
                _check_magic(path, header)
                return header, order
    raise SAMMixError(f"{path}: not a NIfTI file, whatever its suffix says")


def _check_magic(path: Path, header: np.ndarray) -> None:
    magic = bytes(header["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise SAMMixError(f"{path}: a NIfTI header without its voxels (a pair of .hdr and .img); convert it to .nii.gz")
    if magic not in (b"n+1", b"n+2"):
        raise SAMMixError(f"{path}: an ANALYZE 7.5 file or a damaged header, not NIfTI; convert it to .nii.gz")


def _shape(path: Path, header: np.ndarray) -> tuple[int, ...]:
    """Voxels along x, y, z of the one 3D scalar volume that is asked for."""
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise SAMMixError(f"{path}: the sizes in its header are not valid ({dims}); repair the header")
    shape = dims[1 : dims[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    datatype = int(header["datatype"])
    if datatype in NO_SCALARS:
        raise SAMMixError(f"{path}: the voxels are {NO_SCALARS[datatype]}")
    if datatype not in TYPES:
        raise SAMMixError(f"{path}: the voxel type {datatype} in its header is unknown; repair the header")
    if len(shape) != 3:
        if len(shape) == 5 and shape[3] == 1:
            raise SAMMixError(f"{path}: {shape[4]} values a voxel (colour, or a series); give one 3D CT volume")
        what = "a 2D image" if len(shape) < 3 else f"a {len(shape)}D series"
        raise SAMMixError(f"{path}: {what} of {' x '.join(map(str, shape))}; give one 3D CT volume")
    if math.prod(shape) > MAX_VOXELS:
        raise SAMMixError(f"{path}: {' x '.join(map(str, shape))} voxels are too many; crop or resample it first")
    return tuple(shape)


def _read_voxels(path: Path, stream: BufferedIOBase, header: np.ndarray, order: ByteOrder) -> np.ndarray:
    """[z, y, x], scaled by slope and intercept; float64 becomes float32, as does every scaled type that needs it."""
    offset, least = float(header["vox_offset"]), header.dtype.itemsize
    if not least <= offset <= MAX_OFFSET:
        raise SAMMixError(f"{path}: the voxels cannot start at byte {offset:g}, as the header says; repair the header")
    _take(stream, int(offset) - least)
    dtype, shape = np.dtype(TYPES[int(header["datatype"])]), _shape(path, header)
    wanted = math.prod(shape) * dtype.itemsize
    content = _take(stream, wanted, keep=True)
    if len(content) < wanted:
        raise SAMMixError(f"{path}: the file is truncated: {len(content)} of {wanted} bytes of voxels; copy it again")
    voxels = np.frombuffer(content, dtype.newbyteorder(order)).reshape(shape[::-1]).astype(dtype, copy=False)
    return _scaled(voxels, float(header["scl_slope"]), float(header["scl_inter"]))


def _scaled(voxels: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if math.isfinite(slope) and slope != 0:
        intercept = intercept if math.isfinite(intercept) else 0.0
        if (slope, intercept) != (1.0, 0.0):
            with np.errstate(all="ignore"):
                return (voxels * slope + intercept).astype(np.float32)
    with np.errstate(over="ignore"):
        return voxels.astype(np.float32) if voxels.dtype == np.float64 else voxels


def _take(stream: BufferedIOBase, count: int, keep: bool = False) -> bytearray:
    """The next bytes in pieces, so that a header that promises too much costs no memory."""
    content, left = bytearray(), count
    while left > 0 and (piece := stream.read(min(CHUNK, left))):
        left -= len(piece)
        if keep:
            content += piece
    return content


def _read_to_end(stream: BufferedIOBase) -> None:
    """Let gzip compare its checksum; what follows the last member is nobody's business."""
    try:
        _take(stream, MAX_OFFSET)
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):
            raise


def _as_nifti1(header: np.ndarray) -> np.ndarray:
    """The fields that say where the voxels lie, as NIfTI-1 has them."""
    own = np.zeros((), NIFTI1)
    with np.errstate(over="ignore"):
        for name in ("pixdim", "quatern", "qoffset", "srow"):
            own[name] = header[name]
    for name in ("qform_code", "sform_code"):
        own[name] = np.clip(header[name], 0, 32767)
    own["xyzt_units"] = int(header["xyzt_units"]) & 0xFF
    own["dim"] = np.clip(header["dim"], 0, 32767)
    return own


def _header_for(mask: sitk.Image) -> np.ndarray:
    """The header of a mask's file: its scan's, else one that says its grid in both forms."""
    own, grid = np.zeros((), NIFTI1), AxialGrid.of(mask)
    if max(grid.size) > 32767:
        raise OSError(0, "NIfTI-1 holds at most 32767 voxels along an axis; write NRRD instead")
    if mask.HasMetaDataKey(HEADER_KEY):
        own = np.frombuffer(bytes.fromhex(mask.GetMetaData(HEADER_KEY)), NIFTI1)[0].copy()
    else:
        to_ras = RAS_TO_LPS @ grid.affine
        own["pixdim"] = [1, *grid.voxel_mm, 1, 1, 1, 1]
        own["qform_code"] = own["sform_code"] = 1
        own["xyzt_units"] = 2
        own["srow"], own["qoffset"] = to_ras[:3], to_ras[:3, 3]
        rotation = RAS_TO_LPS[:3, :3] @ grid.direction
        if np.linalg.det(rotation) < 0:
            own["pixdim"][0] = -1
            rotation = rotation * [1, 1, -1]
        own["quatern"] = _quaternion(rotation)
    own["sizeof_hdr"], own["magic"], own["vox_offset"] = NIFTI1.itemsize, b"n+1", 352
    own["dim"] = [3, *grid.size, 1, 1, 1, 1]
    own["scl_slope"] = 1
    return own


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """b, c, d of a rotation matrix, with a >= 0."""
    from scipy.spatial.transform import Rotation

    b, c, d, a = Rotation.from_matrix(rotation).as_quat()
    return np.array([b, c, d]) * (-1 if a < 0 else 1)
