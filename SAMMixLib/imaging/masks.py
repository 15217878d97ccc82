"""Masks: label maps, segments of 3D Slicer and DICOM SEG, as 0 and 1 in the order of a scan's voxels."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.dicom import is_dicom
from SAMMixLib.imaging.dicom_seg import Segment, read_dicom_seg
from SAMMixLib.imaging.grid import SAME_VOXEL, AxialGrid
from SAMMixLib.imaging.itk import image_like, name_for_itk, quiet_itk, reason, takes_name
from SAMMixLib.imaging.nifti import MAX_VOXELS
from SAMMixLib.imaging.volume import Volume, read_image, text_header
from SAMMixLib.structure import KNOWN, LIVER, SRT, Structure

ROUNDING = 1e-3  # by which a float may miss an integer and still be this label
MOST_LABELS = 256
CUT = "SAMMix_cut_to_extent"
"""The key in the metadata of a mask that its format cuts to where there are segments."""


def read_mask(path: str | Path, label: int | Collection[int] | None = None, structure: Structure = LIVER) -> sitk.Image:
    """Read a mask, uint8 0 and 1.

    A label map has one value besides 0, or `label` says which counts. Of a ``.seg.nrrd`` or a DICOM SEG it is the
    segment of the structure, by its code and else its name, or the only one.

    Args:
        label: the value, or the values that are known to be the structure, of which any may be absent.

    Raises:
        SAMMixError: as :func:`SAMMixLib.imaging.volume.read_volume`; no label map (probabilities, a CT); several values
            and no choice; the value is absent; no segment, or several, of the structure.
    """
    path = Path(path)
    if not path.is_file():
        raise SAMMixError(f"{path}: no such mask file")
    try:
        dicom = is_dicom(path)
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be opened ({error.strerror})") from None
    if dicom:
        return _segment_of(path, read_dicom_seg(path), label, structure)
    if path.name.lower().endswith((".nrrd", ".nhdr")) and (segments := _slicer_segments(path)):
        return _segment_of(path, segments, label, structure)
    image, _ = read_image(path)
    labels = as_labels(path, sitk.GetArrayViewFromImage(image))
    return image_like(np.isin(labels, _chosen(path, labels, label)).astype(np.uint8), image)


def as_labels(path: Path, array: np.ndarray) -> np.ndarray:
    """The integers that the values of a label map stand for.

    Raises:
        SAMMixError: the values are none of a label map; says what they seem to be.
    """
    if array.dtype.kind not in "iu":
        lowest, highest = array.min(), array.max()
        rounded = np.rint(array)
        if not (np.isfinite(lowest) and np.isfinite(highest)) or np.abs(array - rounded).max() > ROUNDING:
            seems = "probabilities; threshold them first" if lowest >= 0 and highest <= 1 else "an image, not a mask"
            raise SAMMixError(
                f"{path}: not a label map: values from {lowest:g} to {highest:g} that are no integers ({seems})"
            )
        array = rounded.astype(np.int64)
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or (highest - lowest > MOST_LABELS and len(np.unique(array)) > MOST_LABELS):
        raise SAMMixError(f"{path}: not a label map: values from {lowest} to {highest}, as of an image")
    return array


def _chosen(path: Path, labels: np.ndarray, label: int | Collection[int] | None) -> list[int]:
    """The values that count as the structure."""
    there = [int(value) for value in np.unique(labels) if value != 0]
    shown = ", ".join(map(str, there[:12])) + (", ..." if len(there) > 12 else "")
    if label is None:
        if len(there) > 1:
            raise SAMMixError(f"{path}: {len(there)} labels ({shown}); say which is meant (--mask-value, --label)")
        return there
    if not isinstance(label, int):
        return list(label)
    if there and label not in there:
        raise SAMMixError(f"{path}: no voxel has the value {label}; there are {shown}")
    return [label]


def _segment_of(
    path: Path, segments: Sequence[Segment], label: int | Collection[int] | None, structure: Structure
) -> sitk.Image:
    """The segment that is asked for, marked as one that may be cut to its extent."""
    names = ", ".join(f"{one.value} {one.name}" for one in segments[:12])
    if label is not None:
        wanted = {label} if isinstance(label, int) else set(label)
        found = [one for one in segments if one.value in wanted]
        if not found and isinstance(label, int):
            raise SAMMixError(f"{path}: no segment has the value {label}; there are {names}")
    else:
        found = _of_structure(segments, structure)
        if not found:
            raise SAMMixError(f"{path}: no segment {structure.name} by code or name; there are {names}")
    if len(found) != 1 and (label is None or isinstance(label, int)):
        raise SAMMixError(f"{path}: {len(found)} segments may be meant; there are {names}")
    mask = found[0].mask
    for other in found[1:]:
        mask = mask | other.mask
    mask.SetMetaData(CUT, "1")
    return mask


def _of_structure(segments: Sequence[Segment], structure: Structure) -> list[Segment]:
    """The segments with the structure's code; else those with its name; else the only one, if it says nothing else."""
    codes = {structure.code, SRT.get(structure.code, structure.code)}
    if by_code := [one for one in segments if codes & set(one.codes)]:
        return by_code
    names = {structure.name.casefold(), structure.code_meaning.casefold()}
    if by_name := [one for one in segments if one.name.strip().casefold() in names]:
        return by_name
    others = {other.name for other in KNOWN} | {other.code_meaning.casefold() for other in KNOWN}
    if len(segments) == 1 and not segments[0].codes and segments[0].name.strip().casefold() not in others:
        return list(segments)
    return []


def _slicer_segments(path: Path) -> list[Segment]:
    """The segments of a file of 3D Slicer, which may lie in layers; none where it is a plain label map."""
    text_header(path)
    with name_for_itk(path) as name, quiet_itk():
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        try:
            reader.ReadImageInformation()
            keys = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if takes_name(key)}
            numbers = sorted(int(found[1]) for key in keys if (found := re.fullmatch(r"Segment(\d+)_ID", key)))
            if not numbers:
                return []
            if not 0 < math.prod(reader.GetSize()) * reader.GetNumberOfComponents() <= MAX_VOXELS:
                raise SAMMixError(f"{path}: the sizes in its header are not valid")
            image = reader.Execute()
        except RuntimeError as error:
            raise SAMMixError(f"{path}: cannot be read as a segmentation: {reason(error)}") from None
    if image.GetDimension() != 3:
        raise SAMMixError(f"{path}: a {image.GetDimension()}D segmentation; give one of a 3D volume")
    array = sitk.GetArrayViewFromImage(image)
    layers = array[..., None] if array.ndim == 3 else array
    segments = []
    for number in numbers:
        value = keys.get(f"Segment{number}_LabelValue", "1")
        layer = keys.get(f"Segment{number}_Layer", "0")
        if not (value.strip().isdecimal() and layer.strip().isdecimal() and int(layer) < layers.shape[-1]):
            raise SAMMixError(f"{path}: segment {number} has no valid label value or layer; save it again in 3D Slicer")
        mask = sitk.GetImageFromArray((layers[..., int(layer)] == int(value)).astype(np.uint8))
        mask.CopyInformation(image)
        name = keys.get(f"Segment{number}_Name", keys[f"Segment{number}_ID"])
        segments.append(Segment(name, int(value), _codes(keys.get(f"Segment{number}_Tags", "")), mask))
    return segments


def _codes(tags: str) -> tuple[str, ...]:
    """The code of the type in the terminology entry of a segment's tags."""
    entry = re.search(r"TerminologyEntry:([^|]*)", tags)
    fields = entry[1].split("~") if entry else []
    parts = fields[2].split("^") if len(fields) > 2 else []
    generic = ("", "85756007")  # Tissue: what Slicer gives to a segment that nobody named
    return (parts[1],) if len(parts) > 1 and parts[1] not in generic else ()


def mask_on_grid(mask: sitk.Image, reference: sitk.Image) -> np.ndarray:
    """The mask's voxels as uint8 in the order of the reference's array, where both are one physical grid.

    The mask may be stored with its axes in another order or direction, and, as a segment, cut to its extent; nothing is
    resampled.

    Raises:
        SAMMixError: the grids are not the same; says how they differ.
    """
    own, grid = AxialGrid.of(mask), AxialGrid.of(reference)
    to_reference = np.linalg.inv(grid.affine) @ own.affine  # mask index -> reference index
    turn = np.rint(to_reference[:3, :3])
    if not np.array_equal(np.abs(turn) @ np.ones(3), np.ones(3)) or abs(np.linalg.det(turn)) != 1:
        raise SAMMixError(f"the mask's axes or spacing are not the volume's: {own} against {grid}")
    size = (np.abs(turn) @ own.size).astype(int)
    cut = mask.HasMetaDataKey(CUT)
    if not cut and not np.array_equal(size, grid.size):
        raise SAMMixError(f"the mask's size is not the volume's: {own} against {grid}")
    first = np.where(turn.sum(axis=1) < 0, size - 1, 0).astype(float)
    offset = np.rint(to_reference[:3, 3] - first) if cut else np.zeros(3)
    expected = np.eye(4)
    expected[:3, :3] = turn
    expected[:3, 3] = first + offset
    shift = np.abs((to_reference - expected) @ own.corners).max()
    if shift > SAME_VOXEL:
        raise SAMMixError(f"the mask lies up to {shift:.3g} voxels off the volume's grid: {own} against {grid}")
    axes = np.abs(turn).argmax(axis=1)  # the mask axis that runs along each reference axis
    array = sitk.GetArrayViewFromImage(mask).transpose([2 - axes[axis] for axis in (2, 1, 0)])
    array = array[tuple(slice(None, None, int(turn[axis].sum())) for axis in (2, 1, 0))]
    if not cut:
        return np.array(array, np.uint8, order="C")  # a copy: the view dies with the mask image
    return _placed(array, offset.astype(int)[::-1], grid)


def whole_grid(one: sitk.Image, other: sitk.Image) -> sitk.Image:
    """An image of the grid that two masks can be laid on: the first that is whole, or of two cut ones what holds both.

    Raises:
        SAMMixError: two cut masks lie too far apart to be of one scan.
    """
    whole = [mask for mask in (one, other) if not mask.HasMetaDataKey(CUT)]
    if whole:
        return whole[0]
    grid, cut = AxialGrid.of(one), AxialGrid.of(other)
    corners = np.rint(np.linalg.inv(grid.affine) @ cut.affine @ cut.corners)[:3]
    low = np.minimum(0, corners.min(axis=1))
    high = np.maximum(np.array(grid.size) - 1, corners.max(axis=1))
    if not np.prod(high - low + 1) <= MAX_VOXELS:
        raise SAMMixError("the two masks lie too far apart; they belong to different scans")
    return sitk.ConstantPad(one, (-low).astype(int).tolist(), (high + 1 - grid.size).astype(int).tolist(), 0)


def _placed(array: np.ndarray, offset: np.ndarray, grid: AxialGrid) -> np.ndarray:
    """An array [z, y, x] laid at `offset` into an empty one of the grid's size; what is set must lie inside."""
    whole = np.zeros(grid.size[::-1], np.uint8)
    low, high = np.maximum(offset, 0), np.minimum(offset + array.shape, whole.shape)
    inside = array[tuple(slice(max(a - o, 0), max(b - o, 0)) for a, b, o in zip(low, high, offset, strict=True))]
    if np.count_nonzero(inside) < np.count_nonzero(array):
        raise SAMMixError("the segment reaches beyond the volume; it belongs to another scan")
    if inside.size:
        whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = inside
    return whole


def axial_mask(
    file: str | Path, volume: Volume, label: int | Collection[int] | None = None, structure: Structure = LIVER
) -> np.ndarray:
    """The mask of a file, uint8 0 and 1, as [k, j, i] on the axial stack of ``volume``.

    Raises:
        SAMMixError: as :func:`read_mask` and :func:`mask_on_grid`.
    """
    mask = read_mask(file, label, structure)
    try:
        on_grid = mask_on_grid(mask, volume.image)
    except SAMMixError as error:
        raise SAMMixError(f"{file} for {volume.path}: {error}") from None
    return np.ascontiguousarray(volume.grid.to_stack(on_grid))
