"""A CT volume on its own grid: read it, stand it up as axial slices, and bring a mask back to exactly that grid."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.dicom import DIRECTORY, is_dicom, read_series
from SAMMixLib.imaging.grid import AxialGrid
from SAMMixLib.imaging.hounsfield import in_hu
from SAMMixLib.imaging.itk import image_like, name_for_itk, printable, quiet_itk, reason
from SAMMixLib.imaging.nifti import MAX_VOXELS, VOXEL_MM, check_axes, read_nifti
from SAMMixLib.imaging.resize import ResizeToSquare

HEADER_BYTES = 1 << 16
LONGEST_LINE = 500  # bytes of a field of NRRD; beyond some more ITK's parser overruns its own message
METAIMAGE_AXES = tuple(b"%d" % n for n in range(1, 11))
METAIMAGE_BYTES = {
    b"MET_CHAR": 1, b"MET_UCHAR": 1, b"MET_SHORT": 2, b"MET_USHORT": 2, b"MET_INT": 4, b"MET_UINT": 4,
    b"MET_FLOAT": 4, b"MET_DOUBLE": 8, b"MET_LONG_LONG": 8, b"MET_ULONG_LONG": 8,
}  # fmt: skip
SPACING = re.compile(rb"^\s*(spacings|space directions|ElementS(pacing|ize))\s*[:=]", re.MULTILINE | re.IGNORECASE)
ORIENTATION = re.compile(
    rb"^\s*(space:\s*(left|right|[LR][AP]S)|(TransformMatrix|Orientation|Rotation)\s*=)", re.MULTILINE | re.IGNORECASE
)
METAIMAGE_LINE = re.compile(rb"[ \t]*\w{1,80}[ \t]*=[^\x00-\x08\x0b-\x1f]{0,4000}|[ \t]*")
METAIMAGE_END = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*?)[ \t]*\r?\n?$", re.MULTILINE)
READABLE = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


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
        return printable(self.path.name[: len(self.path.name) - len(suffix)])

    @cached_property
    def grid(self) -> AxialGrid:
        """Where the voxels lie."""
        return AxialGrid.of(self.image)

    def axial(self) -> AxialStack:
        """The same voxels, unresampled, in LPS order, int16 where that loses nothing; made once, read-only."""
        return self._axial

    @cached_property
    def _axial(self) -> AxialStack:
        array = _smallest_exact(self.grid.to_stack(sitk.GetArrayViewFromImage(self.image)))
        array.flags.writeable = False
        return AxialStack(array, self.image)


@dataclass(frozen=True, eq=False)
class AxialStack:
    """A volume as a radiologist looks through it: anterior up, the patient's right on the left.

    ``array`` is int16 or float32 [k, j, i] in HU with k to Superior, j to Posterior and i to Left, each the nearest
    array axis (an oblique grid stays oblique, see :class:`AxialGrid`); ``reference`` is the image it came from.
    """

    array: np.ndarray
    reference: sitk.Image

    @cached_property
    def grid(self) -> AxialGrid:
        return AxialGrid.of(self.reference)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm along k, j, i."""
        return self.grid.spacing

    def to_grid(self, mask_kji: np.ndarray) -> sitk.Image:
        """A mask of this stack, bool or uint8 [k, j, i], as a uint8 image on exactly the reference grid."""
        return image_like(self.grid.to_array(np.asarray(mask_kji)).astype(np.uint8), self.reference)

    def maps_to_image(self, maps: np.ndarray, resize: ResizeToSquare) -> sitk.Image:
        """Maps in the square [k, S, S], one for each slice, as an image exactly where they lie.

        Its axes are i, j and k of the stack, whatever their order in the file; the padding of a slice that is not
        square lies outside the scan.
        """
        to_lps = self.grid.stack_to_lps
        first = [0.0, 0.0, 0.0, 1.0]  # the centre of the square's first pixel in pixels of the slice
        for column, axis in ((0, 1), (1, 0)):
            first[column] = (resize.pixel_mm / 2 - resize.pad_mm[axis]) / resize.spacing[axis] - 0.5
        image = sitk.GetImageFromArray(maps)
        image.SetSpacing((resize.pixel_mm, resize.pixel_mm, self.spacing[0]))
        image.SetDirection((to_lps[:3, :3] / self.spacing[::-1]).ravel())
        image.SetOrigin((to_lps @ first)[:3])
        return image


def read_volume(path: str | Path, series: str | None = None) -> Volume:
    """Read a CT from NIfTI, NRRD, MetaImage, a DICOM folder or one file of a DICOM series.

    Args:
        path: the file or folder.
        series: which DICOM series, by UID or by its number in the list that the error for several series prints.

    Raises:
        SAMMixError: the file is missing, damaged, not 3D and scalar, sheared, without a valid spacing, or no CT. Values
            that are odd for a CT but may be right (no air, NaN) give a warning in :attr:`Volume.warnings` instead.

    Example:
        >>> ct = read_volume("scan.nii.gz")
        >>> stack = ct.axial()
        >>> stack.array.dtype, stack.array.shape  # HU, slices from inferior to superior
        (dtype('int16'), (12, 128, 128))
    """
    path = Path(path)
    if not path.exists():
        raise SAMMixError(f"{path}: no such file or folder")
    try:
        dicom = path.is_dir() or is_dicom(path)
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be opened ({error.strerror})") from None
    if series is not None and not path.is_dir() and path.name.upper() != DIRECTORY:
        raise SAMMixError(f"{path}: a series can be chosen in a DICOM folder only; leave it out")
    image, warnings = read_series(path, series) if dicom else read_image(path)
    if "Segment0_ID" in image.GetMetaDataKeys():
        raise SAMMixError(f"{path}: a .seg.nrrd is a segmentation, not a CT")
    low, high = VOXEL_MM
    if not all(low <= step <= high for step in image.GetSpacing()):
        steps = " x ".join(f"{step:g}" for step in image.GetSpacing())
        warnings.append(f"{path}: no CT has voxels of {steps} mm; check the unit of its header")
    image, more = in_hu(path, image)
    return Volume(image, path, tuple(map(printable, warnings + more)))


def read_image(path: Path) -> tuple[sitk.Image, list[str]]:
    """Read an image file after its header passed every check, with warnings about the header.

    Raises:
        SAMMixError: unknown suffix, empty, damaged (with ITK's reason), not 3D and scalar, no valid grid.
    """
    suffix = suffix_of(path, READABLE)
    if not path.is_file():
        raise SAMMixError(f"{path}: not a regular file; give the path of an image")
    if path.stat().st_size == 0:
        raise SAMMixError(f"{path}: the file is empty")
    if suffix.startswith(".nii"):
        return read_nifti(path)
    header = text_header(path)
    with name_for_itk(path) as name, quiet_itk():
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise SAMMixError(f"{path}: cannot be read as {suffix}: {reason(error)}") from None
        _check_header(path, reader)
        if reader.GetPixelID() == sitk.sitkFloat64:
            reader.SetOutputPixelType(sitk.sitkFloat32)
        try:
            return reader.Execute(), _left_open(path, header)
        except RuntimeError as error:
            raise SAMMixError(f"{path}: the voxels cannot be read: {reason(error)}") from None


def text_header(path: Path) -> bytes:
    """The text at the start of an NRRD or MetaImage file.

    Raises:
        SAMMixError: it is one that ends the process in ITK's reader, or that this takes for whole where voxels are cut.
    """
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
        if path.name.lower().endswith((".mha", ".mhd")):
            _check_metaimage(path, header)
            return header
        stream.seek(0)
        lines = []
        while header.startswith(b"NRRD") and (line := stream.readline(HEADER_BYTES)).strip():
            lines.append(line)
            free = line.startswith((b"#", b"content:")) or b":=" in line
            if len(line) > LONGEST_LINE and not free:
                raise SAMMixError(f"{path}: its header is not that of an NRRD file, or damaged (a line without end)")
    return b"".join(lines)


def _left_open(path: Path, header: bytes) -> list[str]:
    """What the text header of an NRRD or MetaImage file does not say, for which ITK takes 1 mm and upright axes."""
    doubts = []
    if not SPACING.search(header):
        doubts.append(f"{path}: the header gives no voxel spacing; 1 mm counts, and no volume in ml means anything")
    if not ORIENTATION.search(header):
        doubts.append(f"{path}: the header gives no orientation; check left and right")
    return doubts


def _check_metaimage(path: Path, header: bytes) -> None:
    """Refuse what ends the process in ITK's reader (a line that is none of a header, a pattern of names that C's printf
    would follow, axes beyond all bounds), or what it fills in silence (cut off voxels).
    """
    end = METAIMAGE_END.search(header)
    if end is None or not all(map(METAIMAGE_LINE.fullmatch, header[: end.start()].splitlines())):
        raise SAMMixError(f"{path}: its header is not that of a MetaImage file, or damaged")
    if b"%" in end[1]:
        raise SAMMixError(f"{path}: its voxels lie in several files by a pattern of names; convert it to one file")
    fields = dict(re.findall(rb"^\s*(\w+)\s*=[ \t]*([^\r\n]*?)\s*$", header, re.MULTILINE))
    axes, numbers = fields.get(b"NDims", b""), fields.get(b"DimSize", b"").split()
    whole = all(len(number) < 20 and number.isdigit() and 0 < int(number) <= MAX_VOXELS for number in numbers)
    if axes not in METAIMAGE_AXES or len(numbers) != int(axes) or not whole:
        raise SAMMixError(f"{path}: its header has no valid sizes (NDims, DimSize): not a MetaImage file, or damaged")
    width, channels = METAIMAGE_BYTES.get(fields.get(b"ElementType", b"")), fields.get(b"ElementNumberOfChannels", b"1")
    if end[1] != b"LOCAL" or width is None or not channels.isdigit() or fields.get(b"BinaryData") == b"False":
        return
    wanted = math.prod(map(int, numbers)) * width * int(channels[:4])
    if fields.get(b"CompressedData", b"False").lower() == b"true":
        packed = fields.get(b"CompressedDataSize", b"0")
        wanted = int(packed) if packed.isdigit() else 0
    there = path.stat().st_size - end.end()
    if there < wanted:
        raise SAMMixError(f"{path}: the file is truncated: {there} of {wanted} bytes of voxels; copy it again")


def suffix_of(path: Path, known: tuple[str, ...]) -> str:
    name = path.name.lower()
    for suffix in known:
        if name.endswith(suffix):
            return suffix
    raise SAMMixError(f"{path}: unknown suffix '{path.suffix}'; use one of {', '.join(known)}")


def _check_header(path: Path, reader: sitk.ImageFileReader) -> None:
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if not 0 < math.prod(reader.GetSize()) <= MAX_VOXELS:
        raise SAMMixError(f"{path}: the sizes in its header are not valid: {' x '.join(map(str, reader.GetSize()))}")
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise SAMMixError(f"{path}: the voxels are complex numbers, not HU")
    if components > 1:
        raise SAMMixError(f"{path}: {components} values a voxel (colour, or a series); give one 3D CT volume")
    if dimension != 3:
        what = "a 2D image" if dimension == 2 else f"a {dimension}D series"
        raise SAMMixError(f"{path}: {what} of {' x '.join(map(str, reader.GetSize()))}; give one 3D CT volume")
    spacing = reader.GetSpacing()
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        millimetres = " x ".join(f"{value:g}" for value in spacing)
        raise SAMMixError(f"{path}: the voxel spacing is {millimetres} mm; repair the header")
    check_axes(path, AxialGrid.of(reader).affine)


def _smallest_exact(array: np.ndarray) -> np.ndarray:
    """The array as int16 where no value changes, else as float32; always a contiguous copy."""
    limits = np.iinfo(np.int16)
    if array.min() >= limits.min and array.max() <= limits.max:
        integers = array.astype(np.int16, order="C")
        if array.dtype.kind in "iu" or np.array_equal(integers, array):
            return integers
    return array.astype(np.float32, order="C")
