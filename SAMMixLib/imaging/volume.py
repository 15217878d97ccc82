"""A CT volume on its own grid: read it, stand it up as axial slices, and write a mask back on exactly that grid."""

from __future__ import annotations

import errno
import gzip
import itertools
import math
import os
import secrets
import shutil
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.dicom import MAX_SHEAR, is_dicom, quiet_itk, read_series
from SAMMixLib.imaging.segnrrd import segment_metadata
from SAMMixLib.structure import LIVER, Structure

READABLE = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
WRITABLE = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha")
AIR = -1024  # HU; scanners pad outside their field of view with anything down to -3024
SAME_VOXEL = 0.05  # voxels by which two grids may differ through rounding and still be one
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT as it lies in its file: ``image`` is 3D, scalar, in HU (none below -1024), on the file's own grid."""

    image: sitk.Image
    path: Path
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's or folder's name without the suffix of its format."""
        suffix = next((s for s in (*READABLE, ".dcm") if self.path.name.lower().endswith(s)), "")
        return self.path.name[: len(self.path.name) - len(suffix)]

    def axial(self) -> AxialStack:
        """The same voxels, unresampled, in LPS order, int16 wherever that loses nothing, else float32."""
        axes, flips = axial_order(_direction(self.image))
        array = sitk.GetArrayViewFromImage(self.image).transpose([2 - axis for axis in axes])[flips]
        spacing = self.image.GetSpacing()
        return AxialStack(_smallest_exact(array), tuple(spacing[axis] for axis in axes), self.image)


@dataclass(frozen=True, eq=False)
class AxialStack:
    """A volume as a radiologist looks through it: anterior up, the patient's right on the left.

    ``array`` is int16 or float32 [k, j, i] in HU with k to Superior, j to Posterior and i to Left, each the nearest
    array axis (an oblique grid stays oblique); ``spacing`` is (k, j, i) in mm; ``reference`` is the original grid.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    reference: sitk.Image

    def to_grid(self, mask_kji: np.ndarray) -> sitk.Image:
        """A mask of this stack, bool or uint8 [k, j, i], as a uint8 image on exactly the reference grid."""
        axes, flips = axial_order(_direction(self.reference))
        array = np.asarray(mask_kji)[flips].transpose(np.argsort([2 - axis for axis in axes]))
        return _image_like(array.astype(np.uint8), self.reference)


def read_volume(path: str | Path, series: str | None = None) -> Volume:
    """Read a CT from NIfTI, NRRD, MetaImage, a DICOM folder or one file of a DICOM series.

    Args:
        path: the file or folder.
        series: which DICOM series, by UID or by its number in the list that the error for several series prints.

    Raises:
        SAMMixError: the file is missing, damaged, not 3D and scalar, sheared, without a valid spacing, or no CT. Values
            that are odd for a CT but may be right (no air, NaN) give a warning in :attr:`Volume.warnings` instead.
    """
    path = Path(path)
    if not path.exists():
        raise SAMMixError(f"{path}: no such file or folder")
    try:
        dicom = path.is_dir() or is_dicom(path)
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be opened ({error.strerror})") from None
    if series is not None and not path.is_dir():
        raise SAMMixError(f"{path}: a series can be chosen in a DICOM folder only; leave it out")
    image, warnings = read_series(path, series) if dicom else _read_file(path)
    if "Segment0_ID" in image.GetMetaDataKeys():
        raise SAMMixError(f"{path}: a .seg.nrrd is a segmentation, not a CT")
    image, more = _in_hu(path, image)
    return Volume(image, path, tuple(warnings + more))


def read_mask(path: str | Path, label: int | None = None) -> sitk.Image:
    """Read a mask, uint8 0 and 1: the voxels equal to ``label``, or by default those above 0.

    Raises:
        SAMMixError: as :func:`read_volume`; DICOM (SEG) is not read.
    """
    path = Path(path)
    if not path.is_file():
        raise SAMMixError(f"{path}: no such mask file")
    image, _ = _read_file(path)
    array = sitk.GetArrayViewFromImage(image)
    return _image_like((array > 0 if label is None else array == label).astype(np.uint8), image)


def mask_on_grid(mask: sitk.Image, reference: sitk.Image) -> np.ndarray:
    """The mask's voxels as uint8 in the order of the reference's array, where both are one physical grid.

    The mask may be stored with its axes in another order or direction; nothing is resampled.

    Raises:
        SAMMixError: the grids are not the same; says how they differ.
    """
    to_reference = np.linalg.inv(_affine(reference)) @ _affine(mask)  # mask index -> reference index
    turn = np.rint(to_reference[:3, :3])
    if not np.array_equal(np.abs(turn) @ np.ones(3), np.ones(3)) or abs(np.linalg.det(turn)) != 1:
        raise SAMMixError(
            f"the mask's axes or spacing are not the volume's: {_describe(mask)} against {_describe(reference)}"
        )
    size = np.abs(turn) @ mask.GetSize()
    if not np.array_equal(size, reference.GetSize()):
        raise SAMMixError(f"the mask's size is not the volume's: {_describe(mask)} against {_describe(reference)}")
    expected = np.eye(4)
    expected[:3, :3] = turn
    expected[:3, 3] = np.where(turn.sum(axis=1) < 0, size - 1, 0)
    corners = _corners(mask)
    shift = np.abs((to_reference - expected) @ corners).max()
    if shift > SAME_VOXEL:
        raise SAMMixError(
            f"the mask lies up to {shift:.3g} voxels off the volume's grid: "
            f"{_describe(mask)} against {_describe(reference)}"
        )
    axes = np.abs(turn).argmax(axis=1)  # the mask axis that runs along each reference axis
    array = sitk.GetArrayViewFromImage(mask).transpose([2 - axes[axis] for axis in (2, 1, 0)])
    flips = tuple(slice(None, None, int(turn[axis].sum())) for axis in (2, 1, 0))
    return np.array(array[flips], np.uint8, order="C")  # a copy: the view dies with the mask image


def check_output(path: str | Path, overwrite: bool = True) -> None:
    """Make sure, before the long work, that a mask can be written to ``path``.

    Raises:
        SAMMixError: unknown suffix, the folder is missing or not writable, the path is a folder, or the file is there
            and must not be overwritten.
    """
    path = Path(path)
    _suffix(path, WRITABLE)
    if path.is_dir():
        raise SAMMixError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise SAMMixError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.exists() and not overwrite:
        raise SAMMixError(f"{path}: is there already; remove it or choose another name")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SAMMixError(f"{path}: cannot write into the folder {path.parent} ({error.strerror})") from None


def write_mask(mask: sitk.Image, path: str | Path, overwrite: bool = True, structure: Structure = LIVER) -> None:
    """Write a mask as uint8 0 and 1, compressed, by suffix: .nii.gz, .nii, .nrrd, .seg.nrrd (a segment) or .mha.

    The file appears whole or not at all: it is written beside, read back and compared, then renamed. NIfTI stores the
    grid in single precision.

    Raises:
        SAMMixError: as :func:`check_output`, or the file could not be written whole (full disk).
    """
    path = Path(path)
    check_output(path, overwrite)
    suffix = _suffix(path, WRITABLE)
    labels = mask != 0  # a new image: the metadata of the mask's own file stays behind
    if suffix == ".seg.nrrd":
        for key, value in segment_metadata(labels.GetSize(), structure).items():
            labels.SetMetaData(key, value)
    _write_whole(labels, path, suffix)


def write_scan(image: sitk.Image, path: str | Path) -> None:
    """Write a scan, compressed, by suffix as in :func:`write_mask`; it appears whole or not at all.

    Raises:
        SAMMixError: as :func:`write_mask`.
    """
    path = Path(path)
    check_output(path)
    _write_whole(image, path, _suffix(path, WRITABLE))


def _write_whole(image: sitk.Image, path: Path, suffix: str) -> None:
    temporary = path.with_name(f".{path.name[: -len(suffix)]}-{secrets.token_hex(4)}{suffix}")
    try:
        with quiet_itk():
            sitk.WriteImage(image, str(temporary), useCompression=True)
            written = sitk.ReadImage(str(temporary))
        if not _same_image(written, image):
            raise OSError(errno.EIO, "the file came out incomplete")
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the file came out incomplete"
        free = shutil.disk_usage(path.parent).free / 1e6
        raise SAMMixError(f"{path}: not written: {reason} ({free:.1f} MB free on this disk)") from None
    finally:
        temporary.unlink(missing_ok=True)


def _suffix(path: Path, known: tuple[str, ...]) -> str:
    name = path.name.lower()
    for suffix in known:
        if name.endswith(suffix):
            return suffix
    raise SAMMixError(f"{path}: unknown suffix '{path.suffix}'; use one of {', '.join(known)}")


def _read_file(path: Path) -> tuple[sitk.Image, list[str]]:
    """Read an image file after its header passed every check, with warnings about the header."""
    suffix = _suffix(path, READABLE)
    if path.stat().st_size == 0:
        raise SAMMixError(f"{path}: the file is empty")
    nifti = _look_into_nifti(path) if suffix.startswith(".nii") else None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError:
        raise SAMMixError(f"{path}: cannot be read as {suffix}: it is damaged, or not what its suffix says") from None
    _check_header(path, reader)
    warnings = _check_nifti_grid(path, nifti, reader) if nifti else []
    if reader.GetPixelID() == sitk.sitkFloat64:
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        with quiet_itk():
            image = reader.Execute()
    except RuntimeError:
        raise SAMMixError(f"{path}: the voxels cannot be read: the file is truncated or damaged") from None
    if nifti and nifti.broken.size:
        array = sitk.GetArrayFromImage(image)
        array.flat[nifti.broken] = np.nan
        image = _image_like(array, image)
    return image, warnings


def _check_header(path: Path, reader: sitk.ImageFileReader) -> None:
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise SAMMixError(f"{path}: the voxels are complex numbers, not HU")
    if components > 1:
        raise SAMMixError(f"{path}: {components} values a voxel (colour, or a series); give one 3D CT volume")
    if dimension != 3:
        what = "a 2D image" if dimension == 2 else f"a {dimension}D series"
        raise SAMMixError(f"{path}: {what} of {' x '.join(map(str, reader.GetSize()))}; give one 3D CT volume")
    _check_spacing(path, reader.GetSpacing())
    _check_axes(path, _affine(reader))


def _check_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        millimetres = " x ".join(f"{value:g}" for value in spacing)
        raise SAMMixError(f"{path}: the voxel spacing is {millimetres} mm; repair the header")


def _check_axes(path: Path, affine: np.ndarray) -> None:
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


@dataclass(frozen=True, eq=False)
class _Nifti:
    """What ITK repairs or passes over in silence in a NIfTI-1 file."""

    qform_code: int
    sform_code: int
    sform: np.ndarray  # [4, 4] voxel index -> LPS mm
    broken: np.ndarray  # flat indices of voxels that are NaN or infinite


def _look_into_nifti(path: Path) -> _Nifti:
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


def _scan_nifti(path: Path, stream: BinaryIO | gzip.GzipFile) -> _Nifti:
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
    _check_spacing(path, pixdim[1 : 1 + min(rank, 3)])
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
    return _Nifti(qform_code, sform_code, RAS_TO_LPS @ np.vstack([rows, [0, 0, 0, 1]]), indices[indices < count])


def _check_nifti_grid(path: Path, header: _Nifti, grid: sitk.ImageFileReader) -> list[str]:
    """Hold the sform against the grid that ITK made of the header: ITK falls back on the qform without a word."""
    if header.sform_code <= 0:
        if header.qform_code <= 0:
            return [f"{path}: the header gives no orientation (qform and sform codes are 0); check left and right"]
        return []
    _check_axes(path, header.sform)
    apart = np.linalg.norm(((header.sform - _affine(grid)) @ _corners(grid))[:3], axis=0).max()
    if apart > SAME_VOXEL * min(grid.GetSpacing()):
        return [
            f"{path}: its sform lies up to {apart:.2g} mm off the grid that ITK and Slicer use, as does this program"
        ]
    return []


def _in_hu(path: Path, image: sitk.Image) -> tuple[sitk.Image, list[str]]:
    """Fill what is not a number, cut padding at -1024 HU, and judge whether the values can be those of a CT."""
    array, warnings = sitk.GetArrayViewFromImage(image), []
    if array.dtype.kind == "f" and (broken := ~np.isfinite(array)).any():
        array = np.where(broken, array.dtype.type(AIR), array)
        warnings.append(f"{path}: {np.count_nonzero(broken)} voxels are NaN or infinite; they count as air ({AIR} HU)")
    lowest, highest = array.min().item(), array.max().item()  # Python numbers: int16 ones would overflow below
    if lowest == highest:
        raise SAMMixError(f"{path}: every voxel is {lowest:g}; this is not a CT")
    if highest - lowest < 50:
        raise SAMMixError(f"{path}: the values span only {lowest:g} to {highest:g}; a mask or a scaled image, not HU")
    in_air = np.count_nonzero((array > -1100) & (array < -200)) / array.size
    if in_air < 0.001:
        warnings.append(
            f"{path}: no air among its values of {lowest:g} to {highest:g}; unless it is cut to the body, it is no CT "
            "in HU (an MR, or without its offset of -1024), and the mask means nothing"
        )
    if lowest < AIR:
        array = np.maximum(array, array.dtype.type(AIR))
    return (image, warnings) if lowest >= AIR and not warnings else (_image_like(array, image), warnings)


def axial_order(direction: np.ndarray) -> tuple[tuple[int, int, int], tuple[slice, ...]]:
    """How a grid becomes an axial stack: the image axes (0 is x) nearest to S, P and L, and the slices that turn each.

    ``array.transpose([2 - axis for axis in axes])[flips]`` is the stack [k, j, i] of an array [z, y, x]. The slice axis
    is chosen first: on a steeply oblique grid all three axes can be nearest to another.

    Args:
        direction: [3, 3] direction cosines; rows L, P, S, one column for each image axis.
    """
    k = int(np.abs(direction[2]).argmax())
    rest = [axis for axis in range(3) if axis != k]
    j, i = max(itertools.permutations(rest), key=lambda pair: abs(direction[1, pair[0]]) + abs(direction[0, pair[1]]))
    flips = tuple(
        slice(None, None, -1 if direction[row, axis] < 0 else 1) for row, axis in zip((2, 1, 0), (k, j, i), strict=True)
    )
    return (k, j, i), flips


def _direction(image: sitk.Image) -> np.ndarray:
    return np.reshape(image.GetDirection(), (3, 3))


def _smallest_exact(array: np.ndarray) -> np.ndarray:
    """The array as int16 where no value changes, else as float32; always a contiguous copy."""
    limits = np.iinfo(np.int16)
    if array.min() >= limits.min and array.max() <= limits.max:
        integers = array.astype(np.int16, order="C")
        if array.dtype.kind in "iu" or np.array_equal(integers, array):
            return integers
    return array.astype(np.float32, order="C")


def _image_like(array: np.ndarray, grid: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    return image


def _affine(grid: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """[4, 4] voxel index (x, y, z, 1) -> LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(grid.GetDirection(), (3, 3)) * grid.GetSpacing()
    affine[:3, 3] = grid.GetOrigin()
    return affine


def _corners(grid: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """[4, 8] homogeneous indices of the corner voxels."""
    return np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in grid.GetSize()))], float).T


def _same_image(one: sitk.Image, other: sitk.Image) -> bool:
    if one.GetSize() != other.GetSize():
        return False
    apart = np.abs((_affine(one) - _affine(other)) @ _corners(one)).max()
    return apart < SAME_VOXEL * min(one.GetSpacing()) and np.array_equal(
        sitk.GetArrayViewFromImage(one), sitk.GetArrayViewFromImage(other)
    )


def _describe(grid: sitk.Image) -> str:
    def row(values: tuple[float, ...]) -> str:
        return " x ".join(f"{value:.6g}" for value in values)

    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.GetDirection())
    return f"{row(grid.GetSize())} of {row(grid.GetSpacing())} mm, {code}, origin {row(grid.GetOrigin())}"
