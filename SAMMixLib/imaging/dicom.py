"""A CT series out of DICOM files: found, chosen, ordered by position, and refused where its slices make no grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import MAX_SHEAR
from SAMMixLib.imaging.itk import quiet_itk

MAX_UNEVEN = 0.1  # of the slice distance: a slice further than this from its place on an even grid is refused
SAME_PLACE = 0.01  # mm between slices that are taken to lie at one position
SEG_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its magic bytes, or (written without them) by its suffix."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM" or path.suffix.lower() == ".dcm"


def read_series(path: Path, series: str | None = None) -> tuple[sitk.Image, list[str]]:
    """Read one CT series in HU.

    Args:
        path: a folder, searched through all its subfolders, or one file of the series, whose folder is searched.
        series: in a folder, the SeriesInstanceUID, or the number in the list that the error for several series prints.

    Returns:
        the 3D image with rescale applied, slices in the order of the slice normal; and warnings, one line each.

    Raises:
        SAMMixError: no CT, several series and no choice, another modality, a SEG, multi-frame, unreadable pixels,
            gantry tilt, gaps, several images at one position, slices of different size or orientation.
    """
    if path.is_dir():
        headers, unreadable = _read_headers(file for file in sorted(path.rglob("*")) if file.is_file())
        chosen = _choose(path, headers, unreadable, series)
    else:
        chosen, unreadable = _series_of(path)
    warnings = []
    if unreadable:
        warnings.append(f"{path}: {unreadable} DICOM file(s) left out: damaged, or without an image")
    image, more = _read_stack(path, chosen)
    return image, warnings + more


@dataclass(frozen=True, eq=False)
class _Header:
    """What the choice and the order of slices need of one DICOM image file; numbers that are not there are NaN."""

    path: Path
    uid: str
    number: str
    description: str
    size: tuple[int, ...]
    position: np.ndarray  # [3] mm, LPS, centre of the first pixel
    orientation: np.ndarray  # [2, 3] directions of a row and of a column
    spacing: np.ndarray  # [2] mm, between rows and between columns
    thickness: float  # mm
    rescale: tuple[float, float]  # slope, intercept
    refusal: str  # why this is no slice of a CT volume; empty when it is one


def _read_header(path: Path) -> _Header:
    """Raises RuntimeError when GDCM finds no image in the file."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()

    def text(tag: str) -> str:
        # Names in a wrongly declared character set come with surrogates, which no terminal prints.
        return reader.GetMetaData(tag).strip(" \0").encode("utf-8", "replace").decode() if tag in keys else ""

    def numbers(tag: str, count: int) -> np.ndarray:
        try:
            values = np.array(text(tag).split("\\"), float)
        except ValueError:
            return np.full(count, np.nan)
        return values if len(values) == count and np.isfinite(values).all() else np.full(count, np.nan)

    keys = set(reader.GetMetaDataKeys())
    modality, position, orientation = text("0008|0060"), numbers("0020|0032", 3), numbers("0020|0037", 6)
    slope, intercept = numbers("0028|1053", 1).item(), numbers("0028|1052", 1).item()
    refusal = ""
    if text("0008|0016") == SEG_STORAGE or modality == "SEG":
        refusal = "a DICOM SEG is a segmentation, not a CT"
    elif modality != "CT":
        refusal = f"the modality is {modality or 'not given'}, not CT"
    elif text("0028|0008") not in ("", "0", "1"):
        refusal = "multi-frame (enhanced) CT is not read; convert it to NIfTI first"
    elif "LOCALIZER" in text("0008|0008"):
        refusal = "a scout (localizer) is no slice of a volume"
    elif reader.GetNumberOfComponents() != 1:
        refusal = "a colour picture is not a CT"
    elif np.isnan(position).any() or np.isnan(orientation).any():
        refusal = "an image without position and orientation is no slice of a volume"
    return _Header(
        path=path,
        uid=text("0020|000e"),
        number=text("0020|0011"),
        description=text("0008|103e"),
        size=reader.GetSize()[:2],
        position=position,
        orientation=orientation.reshape(2, 3),
        spacing=numbers("0028|0030", 2),
        thickness=numbers("0018|0050", 1).item(),
        rescale=(1.0 if np.isnan(slope) else slope, 0.0 if np.isnan(intercept) else intercept),
        refusal=refusal,
    )


def _read_headers(files: Iterable[Path]) -> tuple[list[_Header], int]:
    """The headers of all DICOM images among the files, and the number of DICOM files that could not be read as one."""
    headers, unreadable = [], 0
    with quiet_itk():
        for file in files:
            try:
                if is_dicom(file):
                    headers.append(_read_header(file))
            except (RuntimeError, OSError):
                unreadable += file.name != "DICOMDIR"
    return headers, unreadable


def _series_of(path: Path) -> tuple[list[_Header], int]:
    """The slices in the file's folder that belong to its series."""
    try:
        with quiet_itk():
            header = _read_header(path)
    except RuntimeError:
        raise SAMMixError(f"{path}: cannot be read as a DICOM image: it is damaged, or holds no image") from None
    if header.refusal:
        raise SAMMixError(f"{path}: {header.refusal}")
    headers, unreadable = _read_headers(file for file in sorted(path.parent.iterdir()) if file.is_file())
    return [other for other in headers if other.uid == header.uid and not other.refusal], unreadable


def _choose(path: Path, headers: list[_Header], unreadable: int, wanted: str | None) -> list[_Header]:
    """The slices of the one CT series there is, or of the one that is wanted."""
    found: dict[str, list[_Header]] = {}
    for header in headers:
        if not header.refusal:
            found.setdefault(header.uid, []).append(header)
    listed = sorted(found.values(), key=lambda one: (len(one[0].number), one[0].number, one[0].uid))
    if not listed:
        refused = Counter(header.refusal for header in headers)
        if unreadable:
            refused["damaged, or DICOM without an image"] = unreadable
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
    for header in headers:
        if header.uid == wanted:
            raise SAMMixError(f"{path}: series {wanted}: {header.refusal}")
    raise SAMMixError(f"{path}: no CT series '{wanted}'; there is {catalogue}")


def _describe(slices: list[_Header]) -> str:
    first = slices[0]
    name = f"'{first.description}'" if first.description else "without description"
    return f"{name}, {len(slices)} slices of {first.size[0]} x {first.size[1]}, UID {first.uid or 'missing'}"


def _read_stack(path: Path, slices: list[_Header]) -> tuple[sitk.Image, list[str]]:
    """Read slices as one volume on an even, orthogonal grid, or say why they make none."""
    first = slices[0]
    if any(one.size != first.size for one in slices):
        raise SAMMixError(f"{path}: slices of different size in one series; separate them first")
    if any(np.abs(one.orientation - first.orientation).max() > MAX_SHEAR for one in slices):
        raise SAMMixError(f"{path}: slices of different orientation in one series; separate them first")
    if not (first.spacing > 0).all():
        raise SAMMixError(f"{path}: the pixel spacing is missing or zero; repair the DICOM header")
    if not all(np.allclose(one.spacing, first.spacing, rtol=1e-4) for one in slices):
        raise SAMMixError(f"{path}: slices of different pixel spacing in one series; separate them first")

    normal = np.cross(first.orientation[0], first.orientation[1])
    slices, warnings = _drop_repeated(path, sorted(slices, key=lambda one: one.position @ normal), normal)
    step, uneven = _slice_distance(path, slices, normal)
    if uneven:
        warnings.append(uneven)

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(one.path) for one in slices])
    scales = {one.rescale for one in slices}
    if len(scales) > 1 or not all(value.is_integer() for value in slices[0].rescale):
        reader.SetOutputPixelType(sitk.sitkFloat32)  # else every slice takes the type that fits the first one's rescale
    try:
        with quiet_itk():
            image = reader.Execute()
    except RuntimeError:
        raise SAMMixError(f"{path}: the pixels of this series cannot be decoded; convert it to NIfTI first") from None
    image.SetSpacing((*image.GetSpacing()[:2], step))
    return image, warnings


def _drop_repeated(path: Path, slices: list[_Header], normal: np.ndarray) -> tuple[list[_Header], list[str]]:
    """Leave out slices that are there twice; refuse different images at one position (phases, reconstructions)."""
    kept = slices[:1]
    for one in slices[1:]:
        if (one.position - kept[-1].position) @ normal > SAME_PLACE:
            kept.append(one)
        elif not np.array_equal(_pixels(one.path), _pixels(kept[-1].path)):
            raise SAMMixError(
                f"{path}: different images at one position ({kept[-1].path.name}, {one.path.name}), "
                "as of several phases or reconstructions; separate them first"
            )
    repeated = len(slices) - len(kept)
    return kept, [f"{path}: {repeated} slice(s) that are there twice were left out"] if repeated else []


def _pixels(path: Path) -> np.ndarray:
    try:
        with quiet_itk():
            return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    except RuntimeError:
        raise SAMMixError(f"{path}: the pixels cannot be decoded; convert the series to NIfTI first") from None


def _slice_distance(path: Path, slices: list[_Header], normal: np.ndarray) -> tuple[float, str]:
    """Distance between neighbouring slices in mm, and a warning if they are slightly uneven.

    Raises:
        SAMMixError: the stack leans (gantry tilt), or slices are missing or unevenly spaced.
    """
    if len(slices) == 1:
        thickness = slices[0].thickness
        if not thickness > 0:
            raise SAMMixError(f"{path}: a single slice without thickness has no volume; give the whole series")
        return thickness, f"{path}: the series has a single slice; its thickness is {thickness:g} mm"

    offsets = np.array([one.position - slices[0].position for one in slices])
    along = offsets @ normal
    sideways = np.linalg.norm(offsets - np.outer(along, normal), axis=1)
    steps = np.diff(along)
    step = round(along[-1] / (len(slices) - 1), 6)  # positions are decimal strings: no more digits than they have
    unevenness = np.abs(along - step * np.arange(len(slices))).max()

    faults = []
    if sideways.max() > max(0.1, MAX_SHEAR * along[-1]):  # 0.1 mm: table positions are rounded
        lean = np.degrees(np.arctan2(sideways[-1], along[-1]))
        faults.append(f"the slices lean by {lean:.1f} degrees (gantry tilt)")
    if unevenness > MAX_UNEVEN * step:
        usual = np.median(steps)
        missing = np.rint(steps / usual) - 1
        if np.abs(steps - usual * (missing + 1)).max() <= MAX_UNEVEN * usual:
            where = slices[int(np.argmax(missing))].path.name
            faults.append(f"{int(missing.sum())} slice(s) missing at a distance of {usual:.3g} mm (after {where})")
        else:
            faults.append(f"the slices lie {steps.min():.3g} to {steps.max():.3g} mm apart")
    if faults:
        raise SAMMixError(f"{path}: {' and '.join(faults)}; resample the series to an even, upright grid first")
    if unevenness > SAME_PLACE:
        return step, f"{path}: slice positions are off an even grid by up to {unevenness:.2g} mm"
    return step, ""
