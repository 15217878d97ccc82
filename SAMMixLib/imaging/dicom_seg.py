"""DICOM SEG: its segments as masks, each on the grid of the frames that it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.dicom import SEG_STORAGE, parse, quiet_pydicom, read_header

if TYPE_CHECKING:
    from pydicom import Dataset

LABELMAP = SEG_STORAGE[1]
EVEN = 0.05  # of the slice distance


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment of a file: where it is, what its file calls it, and its code."""

    name: str
    value: int  # in the file
    codes: tuple[str, ...]  # SNOMED CT or SRT
    mask: sitk.Image  # uint8 0 and 1


def read_dicom_seg(path: Path) -> list[Segment]:
    """All segments of a DICOM SEG: binary, fractional (at least half) or a label map.

    Raises:
        SAMMixError: another DICOM object, damaged, or its frames lie on no even grid.
    """
    try:
        header = read_header(path)
    except (ValueError, OSError) as error:
        raise SAMMixError(f"{path}: cannot be read as DICOM: {error}") from None
    with quiet_pydicom():
        try:
            if str(header.get("SOPClassUID", "")) not in SEG_STORAGE:
                raise SAMMixError(f"{path}: this DICOM file is no SEG, so no mask")
            dataset = parse(path, force=True)
            planes, places, numbers = _frames(dataset)
            grid, slots = _grid(path, dataset, places)
            segments = []
            for item in dataset.SegmentSequence:
                number = int(item.SegmentNumber)
                voxels = np.zeros((slots.max() + 1, *planes.shape[1:]), np.uint8)
                for plane, slot, segment in zip(planes, slots, numbers, strict=True):
                    if segment is None:
                        voxels[slot] |= (plane == number).astype(np.uint8)
                    elif segment == number:
                        voxels[slot] |= plane
                mask = sitk.GetImageFromArray(voxels)
                mask.CopyInformation(_sized(grid, mask))
                segments.append(Segment(str(item.get("SegmentLabel", number)), number, _codes(item), mask))
        except SAMMixError:
            raise
        except MemoryError:
            raise
        except Exception as error:  # pydicom raises what its parsers raise
            raise SAMMixError(
                f"{path}: the DICOM SEG cannot be read ({type(error).__name__}: {str(error)[:120]!r})"
            ) from None
    if not segments:
        raise SAMMixError(f"{path}: the DICOM SEG has no segments")
    return segments


def _frames(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, list[int | None]]:
    """uint8 or label planes [n, rows, columns], their positions [n, 3], and whose segment each is (None: all)."""
    planes = dataset.pixel_array
    planes = planes[None] if planes.ndim == 2 else planes
    positions, numbers = [], []
    for group in dataset.PerFrameFunctionalGroupsSequence:
        positions.append([float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient])
        numbers.append(_segment_number(dataset, group))
    if str(dataset.get("SegmentationType", "BINARY")) == "FRACTIONAL":
        planes = planes >= int(dataset.get("MaximumFractionalValue", 255)) / 2
    if None not in numbers:
        planes = (planes > 0).astype(np.uint8)
    return planes, np.array(positions), numbers


def _segment_number(dataset: Dataset, group: Any) -> int | None:
    if str(dataset.SOPClassUID) == LABELMAP:
        return None
    shared = dataset.get("SharedFunctionalGroupsSequence")
    for place in (group, shared[0] if shared else None):
        if place is not None and place.get("SegmentIdentificationSequence"):
            return int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return 1


def _grid(path: Path, dataset: Dataset, positions: np.ndarray) -> tuple[sitk.Image, np.ndarray]:
    """An image of the grid, one slice deep, and the slice of each frame."""
    shared, own = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence[0]

    def value(sequence: str, name: str) -> Any:
        for group in (own, shared):
            if group.get(sequence) and group.get(sequence)[0].get(name) is not None:
                return group.get(sequence)[0].get(name)
        return None

    orientation = np.array(value("PlaneOrientationSequence", "ImageOrientationPatient"), float).reshape(2, 3)
    spacing = [float(step) for step in value("PixelMeasuresSequence", "PixelSpacing")]
    normal = np.cross(orientation[0], orientation[1])
    along = positions @ normal
    heights = np.unique(np.round(along, 3))
    step = float(np.diff(heights).min()) if len(heights) > 1 else 0.0
    if not step:
        said = value("PixelMeasuresSequence", "SpacingBetweenSlices") or value(
            "PixelMeasuresSequence", "SliceThickness"
        )
        step = float(said or 1.0)
    slots = (along - along.min()) / step
    if np.abs(slots - np.rint(slots)).max() > EVEN * max(1.0, slots.max() / 10):
        raise SAMMixError(f"{path}: the frames of this DICOM SEG lie on no even grid")
    grid = sitk.Image([2, 2, 1], sitk.sitkUInt8)
    grid.SetSpacing((spacing[1], spacing[0], step))
    grid.SetOrigin(positions[int(np.argmin(along))].tolist())
    grid.SetDirection(np.stack([orientation[0], orientation[1], normal], axis=1).ravel().tolist())
    return grid, np.rint(slots).astype(int)


def _sized(grid: sitk.Image, mask: sitk.Image) -> sitk.Image:
    image = sitk.Image(mask.GetSize(), sitk.sitkUInt8)
    image.SetSpacing(grid.GetSpacing())
    image.SetOrigin(grid.GetOrigin())
    image.SetDirection(grid.GetDirection())
    return image


def _codes(item: Any) -> tuple[str, ...]:
    kinds = item.get("SegmentedPropertyTypeCodeSequence") or []
    return tuple(str(kind.get("CodeValue")) for kind in kinds if kind.get("CodeValue"))
