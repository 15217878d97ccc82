"""A CT series out of DICOM files: found, chosen, ordered by position, and refused where its slices make no grid.

Headers are parsed by pydicom, and the grid is that of ImagePositionPatient, ImageOrientationPatient and PixelSpacing
alone, whatever else a header says. GDCM, by way of SimpleITK, decodes compressed pixels only.
"""

from __future__ import annotations

import io
import logging
import os
import re
import tempfile
import warnings as python_warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import MAX_SHEAR
from SAMMixLib.imaging.itk import quiet_itk

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_UNEVEN = 0.25  # of the slice distance: a slice further than this from its place on an even grid is refused
MAX_ASIDE = 2.0  # mm by which single slices may lie aside of the others, with a warning
SAME_PLACE = 0.01  # mm between slices that are taken to lie at one position
SEG_STORAGE = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
FRAME = (("NumberOfFrames", 1), ("Rows", 0), ("Columns", 0))
MOST_FRAMES = 20_000
LONGEST_TEXT = 200  # characters of a value in a message
DIRECTORY = "DICOMDIR"
DAMAGED = "damaged or cut off"
VRS = b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its magic bytes, by its suffix, or (without preamble) by its first element."""
    with path.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or path.suffix.lower() == ".dcm" or _starts_with_element(start)


def _starts_with_element(start: bytes) -> bool:
    if len(start) < 12 or start[:2] not in (b"\x02\x00", b"\x08\x00") or start[3] != 0:
        return False
    return start[4:6] in VRS or int.from_bytes(start[4:8], "little") < 128


def read_series(path: Path, series: str | None = None) -> tuple[sitk.Image, list[str]]:
    """Read one CT series in HU.

    Args:
        path: a folder, searched through all its subfolders and links; a DICOMDIR, whose files are taken; or one file
            of the series, whose folder is searched. An enhanced multi-frame CT is a series in one file.
        series: in a folder, the SeriesInstanceUID, or the number in the list that the error for several series prints.

    Returns:
        the 3D image with rescale applied, slices in the order of the slice normal; and warnings, one line each.

    Raises:
        SAMMixError: no CT, several series and no choice, another modality, a SEG, damaged or unreadable pixels,
            gantry tilt, gaps, several images at one position, slices of different size or orientation.
    """
    if path.is_dir():
        files, broken = _read_files(_files_under(path))
        chosen = _choose(path, files, broken, series)
    elif (listed := _files_of_directory(path)) is not None:
        files, broken = _read_files(listed)
        chosen = _choose(path, files, broken, series)
    else:
        chosen, broken = _series_of(path)
    warnings = [f"{path}: left out: {_few(broken)}: {DAMAGED}, or without an image"] if broken else []
    image, more = _read_stack(path, chosen, broken)
    return image, warnings + more


@dataclass(frozen=True, eq=False)
class Slice:
    """One frame of a DICOM image file, as the choice and the order of slices need it; what is not there is NaN."""

    file: File
    frame: int
    position: np.ndarray  # [3] mm, LPS, centre of the first pixel
    orientation: np.ndarray  # [2, 3] directions of a row and of a column
    spacing: np.ndarray  # [2] mm, between rows and between columns
    thickness: float  # mm
    rescale: tuple[float, float]  # slope, intercept


@dataclass(frozen=True, eq=False)
class File:
    """One DICOM image file."""

    path: Path
    uid: str
    number: str
    description: str
    size: tuple[int, int]  # columns, rows
    frames: int
    refusal: str  # why this is no part of a CT volume; empty when it is
    slices: tuple[Slice, ...] = ()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """pydicom without its remarks on values that it can read all the same."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Measured(io.BufferedReader):
    """A file that is asked for no more bytes than it has: a damaged length would cost as much memory as it says."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(io.FileIO(path))
        self._bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None else min(size, self._bytes))


def parse(path: str | Path, **options: Any) -> Dataset:
    """pydicom's ``dcmread`` of a file. Raises what that raises."""
    import pydicom

    with _Measured(path) as file:
        return pydicom.dcmread(file, **options)


def read_header(path: Path) -> Dataset:
    """The header of a DICOM file, without its pixels.

    Raises:
        ValueError: it is damaged, or holds no DICOM object.
        OSError: it cannot be opened.
    """
    with quiet_pydicom():
        try:
            dataset = parse(path, force=True, stop_before_pixels=True)
            if not any(tag in dataset for tag in ("SOPClassUID", "Modality", "Rows")):
                raise ValueError("no DICOM object")
        except OSError:
            raise
        except Exception as error:  # pydicom raises what its parsers raise
            raise ValueError(str(error)) from None
    return dataset


def _files_under(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, in the order of their names; through links, but no folder twice."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        there = os.stat(root)
        if (there.st_dev, there.st_ino) in seen:
            folders.clear()
            continue
        seen.add((there.st_dev, there.st_ino))
        folders.sort()
        yield from (file for name in sorted(names) if (file := Path(root, name)).is_file())


def _files_of_directory(path: Path) -> list[Path] | None:
    """The image files that a DICOMDIR lists, or None where the file is none."""
    with quiet_pydicom():
        try:
            directory = parse(path, force=True, specific_tags=["DirectoryRecordSequence"])
            records = directory.get("DirectoryRecordSequence")
        except Exception:
            return None
        if not records:
            return None
        found = []
        for record in records:
            parts = record.get("ReferencedFileID") or []
            parts = [parts] if isinstance(parts, str) else [str(part) for part in parts]
            if parts and not any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
                found.append(_blind_to_case(path.parent, parts))
    return [file for file in found if file.is_file()]


def _blind_to_case(folder: Path, parts: list[str]) -> Path:
    """A listed path; discs list names in capitals that a copy may have in small letters."""
    for part in parts:
        exact = folder / part
        if not exact.exists() and folder.is_dir():
            exact = next((other for other in folder.iterdir() if other.name.upper() == part.upper()), exact)
        folder = exact
    return folder


def _read_files(paths: Iterable[Path]) -> tuple[list[File], list[Path]]:
    """All DICOM images among the files, and the DICOM files that could not be read as one."""
    files, broken = [], []
    for path in paths:
        if path.name == DIRECTORY:
            continue
        try:
            if is_dicom(path):
                files.append(_file(path, read_header(path)))
        except (ValueError, OSError):
            broken.append(path)
    return files, broken


def _file(path: Path, header: Dataset) -> File:
    """Raises ValueError where the header holds what no DICOM file can."""
    try:
        with quiet_pydicom():
            return _parsed(path, header)
    except MemoryError:
        raise
    except Exception as error:  # pydicom parses values when they are asked for, and raises what its parsers raise
        raise ValueError(str(error)) from None


def _parsed(path: Path, header: Dataset) -> File:
    frames, rows, columns = (int(header.get(name) or least) for name, least in FRAME)
    if frames > MOST_FRAMES:
        raise ValueError(f"{frames} frames")
    file = File(
        path=path,
        uid=_text(header, "SeriesInstanceUID"),
        number=_text(header, "SeriesNumber"),
        description=_text(header, "SeriesDescription"),
        size=(columns, rows),
        frames=frames,
        refusal=_refusal(header, rows * columns * frames),
    )
    if file.refusal:
        return file
    slices = tuple(_slices(file, header, frames))
    if any(np.isnan(one.position).any() or np.isnan(one.orientation).any() for one in slices):
        several = "many frames" if frames > 1 else "an image"
        refusal = f"{several} without position and orientation is no slice of a volume"
        return replace(file, refusal=refusal)
    return replace(file, slices=slices)


def _refusal(header: Dataset, pixels: int) -> str:
    modality, kind = _text(header, "Modality"), _text(header, "SOPClassUID")
    if kind in SEG_STORAGE or modality == "SEG":
        return "a DICOM SEG is a segmentation, not a CT"
    if modality != "CT" and not (not modality and kind in CT_STORAGE):
        return f"the modality is {modality or 'not given'}, not CT"
    if "LOCALIZER" in _text(header, "ImageType"):
        return "a scout (localizer) is no slice of a volume"
    if pixels <= 0:
        return "a file without pixels is no slice of a volume"
    grey = _text(header, "PhotometricInterpretation") in ("", "MONOCHROME1", "MONOCHROME2")
    if not grey or int(header.get("SamplesPerPixel") or 1) != 1:
        return "a colour picture is not a CT"
    return ""


def _slices(file: File, header: Dataset, frames: int) -> Iterator[Slice]:
    """The frames of a file; of an enhanced one each by its functional groups, its own before the shared."""
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    for frame in range(frames):
        own = groups[frame] if frame < len(groups) else None

        def value(sequence: str, name: str, own: Any = own) -> Any:
            for group in (own, shared):
                item = _first(group.get(sequence)) if group is not None else None
                if item is not None and item.get(name) is not None:
                    return item.get(name)
            return header.get(name)

        slope = _numbers(value("PixelValueTransformationSequence", "RescaleSlope"), 1).item()
        intercept = _numbers(value("PixelValueTransformationSequence", "RescaleIntercept"), 1).item()
        yield Slice(
            file=file,
            frame=frame,
            position=_numbers(value("PlanePositionSequence", "ImagePositionPatient"), 3),
            orientation=_numbers(value("PlaneOrientationSequence", "ImageOrientationPatient"), 6).reshape(2, 3),
            spacing=_numbers(value("PixelMeasuresSequence", "PixelSpacing"), 2),
            thickness=_numbers(value("PixelMeasuresSequence", "SliceThickness"), 1).item(),
            rescale=(1.0 if np.isnan(slope) or slope == 0 else slope, 0.0 if np.isnan(intercept) else intercept),
        )


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _text(header: Dataset, name: str) -> str:
    value = header.get(name)
    if value is None:
        return ""
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    text = "\\".join(map(str, value)) if several else str(value)
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip()[:LONGEST_TEXT]
    return text.encode("utf-8", "replace").decode()


def _numbers(value: Any, count: int) -> np.ndarray:
    try:
        values = np.array(value, float).reshape(-1)
    except (TypeError, ValueError):
        return np.full(count, np.nan)
    return values if len(values) == count and np.isfinite(values).all() else np.full(count, np.nan)


def _series_of(path: Path) -> tuple[list[File], list[Path]]:
    """The files in the file's folder that belong to its series."""
    try:
        file = _file(path, read_header(path))
    except ValueError:
        raise SAMMixError(f"{path}: cannot be read as a DICOM image: it is {DAMAGED}, or holds no image") from None
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be read ({error.strerror})") from None
    if file.refusal:
        raise SAMMixError(f"{path}: {file.refusal}")
    if file.frames > 1:
        return [file], []
    files, broken = _read_files(other for other in sorted(path.parent.iterdir()) if other.is_file())
    return [other for other in files if other.uid == file.uid and not other.refusal], broken


def _choose(path: Path, files: list[File], broken: list[Path], wanted: str | None) -> list[File]:
    """The files of the one CT series there is, or of the one that is wanted."""
    found: dict[str, list[File]] = {}
    for file in files:
        if not file.refusal:
            found.setdefault(file.uid, []).append(file)
    listed = sorted(found.values(), key=lambda one: (len(one[0].number), one[0].number, one[0].uid))
    if not listed:
        refused = Counter(file.refusal for file in files)
        if broken:
            refused[f"{DAMAGED}, or DICOM without an image ({_few(broken)})"] = len(broken)
        reasons = "; ".join(f"{count} file(s): {reason}" for reason, count in refused.items()) or "no DICOM file"
        raise SAMMixError(f"{path}: no CT series in this folder ({reasons})")
    catalogue = "; ".join(f"{number}: {_describe(one)}" for number, one in enumerate(listed, 1))
    if wanted is None:
        if len(listed) == 1:
            return listed[0]
        raise SAMMixError(f"{path}: {len(listed)} CT series; choose one by its number or UID: {catalogue}")
    if wanted in found:
        return found[wanted]
    if wanted.isdecimal() and 1 <= int(wanted) <= len(listed):
        return listed[int(wanted) - 1]
    for file in files:
        if file.uid == wanted:
            raise SAMMixError(f"{path}: series {wanted}: {file.refusal}")
    raise SAMMixError(f"{path}: no CT series '{wanted}'; there is {catalogue}")


def _describe(files: list[File]) -> str:
    first = files[0]
    name = f"'{first.description}'" if first.description else "without description"
    count = sum(file.frames for file in files)
    return f"{name}, {count} slices of {first.size[0]} x {first.size[1]}, UID {first.uid or 'missing'}"


def _few(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[:3])
    return names if len(paths) <= 3 else f"{names} and {len(paths) - 3} more"


def _read_stack(path: Path, files: list[File], broken: list[Path]) -> tuple[sitk.Image, list[str]]:
    """Read slices as one volume on an even, orthogonal grid, or say why they make none."""
    slices = [one for file in files for one in file.slices]
    first = slices[0]
    if any(one.file.size != first.file.size for one in slices):
        raise SAMMixError(f"{path}: slices of different size in one series; separate them first")
    if any(np.abs(one.orientation - first.orientation).max() > MAX_SHEAR for one in slices):
        raise SAMMixError(f"{path}: slices of different orientation in one series; separate them first")
    if not (first.spacing > 0).all():
        raise SAMMixError(f"{path}: the pixel spacing is missing or zero; repair the DICOM header")
    if not all(np.allclose(one.spacing, first.spacing, rtol=1e-4) for one in slices):
        raise SAMMixError(f"{path}: slices of different pixel spacing in one series; separate them first")
    direction = _direction(path, first.orientation)

    pixels = _Pixels()
    slices = sorted(slices, key=lambda one: one.position @ direction[:, 2])
    slices, warnings = _drop_repeated(path, slices, direction[:, 2], pixels)
    step, doubt = _slice_distance(path, slices, direction[:, 2], broken)
    if doubt:
        warnings.append(doubt)
    image = sitk.GetImageFromArray(_in_one_type([pixels.hu(one) for one in slices]))
    image.SetSpacing((float(first.spacing[1]), float(first.spacing[0]), step))
    image.SetOrigin(slices[0].position.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image, warnings


def _direction(path: Path, orientation: np.ndarray) -> np.ndarray:
    """[3, 3], columns along a row, along a column, and their normal; right angles where rounding took a little."""
    row, column = orientation
    lengths = np.linalg.norm(orientation, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(row @ column) > MAX_SHEAR:
        raise SAMMixError(f"{path}: the image orientation is not valid (no two directions at right angles)")
    if np.abs(lengths - 1).max() > 1e-6 or abs(row @ column) > 1e-6:
        row = row / lengths[0]
        column = column - (column @ row) * row
        column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _in_one_type(planes: list[np.ndarray]) -> np.ndarray:
    """[z, y, x] int16, where every slice fits, int32 or float32."""
    stack = np.stack(planes)
    if stack.dtype.kind in "iu":
        fits = stack.min() >= -32768 and stack.max() <= 32767
        return stack.astype(np.int16 if fits else np.int32, copy=False)
    return stack.astype(np.float32, copy=False)


class _Pixels:
    """The pixels of slices in HU; a file with many frames is decoded once."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames = np.empty(0)

    def hu(self, one: Slice) -> np.ndarray:
        """[rows, columns] in HU.

        Raises:
            SAMMixError: the file is cut off, or its pixels cannot be decoded.
        """
        if self._path != one.file.path:
            self._frames, self._path = _decode(one.file), one.file.path
        stored = self._frames[one.frame]
        slope, intercept = one.rescale
        if slope.is_integer() and intercept.is_integer() and stored.dtype.kind in "iu":
            return stored.astype(np.int32) * int(slope) + int(intercept)
        return (stored * slope + intercept).astype(np.float32)


def _decode(file: File) -> np.ndarray:
    """The stored values of a file's frames [frames, rows, columns]."""
    columns, rows = file.size
    with quiet_pydicom():
        try:
            dataset = parse(file.path, force=True)
            syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", NATIVE[0]))
            if syntax in NATIVE:
                stored = _native(dataset, file, big_endian=syntax == NATIVE[3])
            elif syntax.startswith("1.2.840.10008.1.2.5"):  # run lengths
                stored = dataset.pixel_array
            else:
                stored = _by_gdcm(dataset)
            return stored.reshape(file.frames, rows, columns)
        except SAMMixError:
            raise
        except MemoryError:
            raise
        except Exception:
            raise SAMMixError(
                f"{file.path}: its pixels cannot be decoded: the file is {DAMAGED}, or of a compression that is not "
                "known; copy it again, or convert the series to NIfTI"
            ) from None


def _native(dataset: Dataset, file: File, big_endian: bool) -> np.ndarray:
    bits = int(dataset.get("BitsAllocated") or 16)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    if bits not in (8, 16, 32):
        return dataset.pixel_array
    dtype = np.dtype(f"{'>' if big_endian else '<'}{'i' if signed else 'u'}{bits // 8}")
    content = dataset.get("PixelData")
    wanted = file.size[0] * file.size[1] * file.frames * dtype.itemsize
    if content is None:
        raise SAMMixError(f"{file.path}: the file holds no integer pixels, as those of a CT are; take it out")
    if len(content) < wanted:
        raise SAMMixError(
            f"{file.path}: the file is {DAMAGED}: {len(content)} of {wanted} bytes of pixels; copy it again"
        )
    stored = np.frombuffer(content[:wanted], dtype).astype(dtype.newbyteorder("="))
    used = int(dataset.get("BitsStored") or bits)
    if used < bits:  # above the stored bits there may be anything
        high = int(dataset.get("HighBit") or used - 1)
        stored = (stored << (bits - 1 - high)) >> (bits - used)
    return stored


def _by_gdcm(dataset: Dataset) -> np.ndarray:
    """The stored values of compressed pixels, by a copy that GDCM takes: a plain name, and no rescale of its own."""
    import pydicom

    groups = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    for name in ("RescaleSlope", "RescaleIntercept", *groups):
        if name in dataset:
            delattr(dataset, name)
    whole = {"enforce_file_format": True} if int(pydicom.__version__[0]) >= 3 else {"write_like_original": False}
    with tempfile.TemporaryDirectory(prefix="sammix-") as folder, quiet_itk():
        copy = Path(folder) / "slice.dcm"
        dataset.save_as(copy, **whole)
        return sitk.GetArrayFromImage(sitk.ReadImage(str(copy), imageIO="GDCMImageIO"))


def _drop_repeated(
    path: Path, slices: list[Slice], normal: np.ndarray, pixels: _Pixels
) -> tuple[list[Slice], list[str]]:
    """Leave out slices that are there twice; refuse different images at one position (phases, reconstructions)."""
    kept = slices[:1]
    for one in slices[1:]:
        last = kept[-1]
        if (one.position - last.position) @ normal > SAME_PLACE:
            kept.append(one)
        elif not np.array_equal(pixels.hu(one), pixels.hu(last)):
            which = ", ".join(dict.fromkeys([last.file.path.name, one.file.path.name]))
            raise SAMMixError(
                f"{path}: different images at one position ({which}), "
                "as of several phases or reconstructions; separate them first"
            )
    repeated = len(slices) - len(kept)
    return kept, [f"{path}: {repeated} slice(s) that are there twice were left out"] if repeated else []


def _slice_distance(path: Path, slices: list[Slice], normal: np.ndarray, broken: list[Path]) -> tuple[float, str]:
    """Distance between neighbouring slices in mm, and a warning if they are slightly uneven or aside.

    Raises:
        SAMMixError: the stack leans (gantry tilt), or slices are missing, aside or unevenly spaced.
    """
    if len(slices) == 1:
        thickness = slices[0].thickness
        if not thickness > 0:
            raise SAMMixError(f"{path}: a single slice without thickness has no volume; give the whole series")
        return thickness, f"{path}: the series has a single slice; its thickness is {thickness:g} mm"

    offsets = np.array([one.position - slices[0].position for one in slices])
    along = offsets @ normal
    step = round(along[-1] / (len(slices) - 1), 6)  # positions are decimal strings: no more digits than they have
    unevenness = np.abs(along - step * np.arange(len(slices))).max()
    lean, aside = _sideways(offsets - np.outer(along, normal), along)
    worst = slices[int(np.argmax(aside))].file.path.name

    faults = []
    if lean * along[-1] > max(0.1, MAX_SHEAR * along[-1]):  # 0.1 mm: table positions are rounded
        faults.append(f"the slices lean by {np.degrees(np.arctan(lean)):.1f} degrees (gantry tilt)")
    elif aside.max() > MAX_ASIDE:
        faults.append(f"a slice lies {aside.max():.3g} mm aside of the others ({worst})")
    if unevenness > MAX_UNEVEN * step:
        faults.append(_gap(slices, np.diff(along)))
    if faults:
        left_out = f" ({_few(broken)}: {DAMAGED})" if broken else ""
        raise SAMMixError(
            f"{path}: {' and '.join(faults)}{left_out}; resample the series to an even, upright grid first"
        )
    doubts = []
    if aside.max() > 0.1:
        doubts.append(f"a slice lies {aside.max():.2g} mm aside of the others ({worst}); it counts as in line")
    if unevenness > SAME_PLACE:
        doubts.append(f"slice positions are off an even grid by up to {unevenness:.2g} mm")
    return step, f"{path}: {'; '.join(doubts)}" if doubts else ""


def _sideways(offsets: np.ndarray, along: np.ndarray) -> tuple[float, np.ndarray]:
    """How much a stack leans (mm sideways a mm along), and how far each slice lies aside of the leaning line.

    The line is the one that most slices lie on (Theil and Sen's median of slopes), so one slice aside does not lean it.
    """
    steps = np.diff(along)
    slopes = np.median(np.diff(offsets, axis=0) / steps[:, None], axis=0)
    rest = offsets - np.outer(along, slopes)
    rest = rest - np.median(rest, axis=0)
    return float(np.linalg.norm(slopes)), np.linalg.norm(rest, axis=1)


def _gap(slices: list[Slice], steps: np.ndarray) -> str:
    usual = np.median(steps)
    missing = np.rint(steps / usual) - 1
    if np.abs(steps - usual * (missing + 1)).max() <= MAX_UNEVEN * usual and missing.sum() > 0:
        where = slices[int(np.argmax(missing))].file.path.name
        return f"{int(missing.sum())} slice(s) missing at a distance of {usual:.3g} mm (after {where})"
    return f"the slices lie {steps.min():.3g} to {steps.max():.3g} mm apart"
