"""A volume node as the input: is it a CT that can be segmented, and its voxels as a file for the worker."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import MAX_SHEAR, RAS_TO_LPS, SAME_VOXEL, AxialGrid
from SAMMixLib.module.scene.geometry import axialGrid, ijkToRas, toStack
from SAMMixLib.module.scene.hygiene import isHelper

CHUNK_BYTES = 8 << 20
NRRD_TYPES = {"float32": "float", "float64": "double"}  # others have numpy's name
TILT = 15.0  # degrees between a slice and the axial plane from which on the user is told


def checkVolume(volumeNode) -> tuple[bool, str, list[str]]:
    """Whether the node can be segmented.

    Returns:
        ok; the reason in one line where it cannot; warnings, one line each, where the result may be poor.
    """
    if volumeNode is None:
        return False, "Choose a CT volume.", []
    name = volumeNode.GetName()
    if isHelper(volumeNode):
        return False, f"{name}: is drawn by SAMMix itself; choose the CT.", []
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        return False, f"{name}: is a label map; choose the CT.", []
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return False, f"{name}: holds no voxels; load it again.", []
    if (components := image.GetNumberOfScalarComponents()) > 1:
        return False, f"{name}: {components} values a voxel (colour, or a series); choose one 3D CT volume.", []
    matrix = ijkToRas(volumeNode)[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(matrix).all() or not spacing.all():
        return False, f"{name}: its voxel spacing is zero or not a number; repair it in the Volumes module.", []
    lean = np.abs((matrix / spacing).T @ (matrix / spacing) - np.eye(3)).max()
    if lean > MAX_SHEAR:
        degrees = math.degrees(math.asin(min(lean, 1.0)))
        return False, f"{name}: its axes are sheared by {degrees:.1f} degrees (gantry tilt); resample it first.", []
    lowest, highest = image.GetScalarRange()
    if not highest - lowest >= 50:
        return False, f"{name}: its values span only {lowest:g} to {highest:g}; a mask or a scaled image, not HU.", []
    return True, "", _warnings(volumeNode, lowest, highest)


def exportVolume(volumeNode, path: Path) -> Iterator[None]:
    """Write the node's voxels, as they are, on the node's own grid (no parent transform) to an uncompressed NRRD file.

    It comes in steps of some MB. The file is whole after the last.

    Raises:
        OSError: the file cannot be written.
    """
    array = np.ascontiguousarray(slicer.util.arrayFromVolume(volumeNode))
    rows = max(1, CHUNK_BYTES * len(array) // array.nbytes)
    with path.open("wb") as file:
        file.write(_nrrdHeader(array, RAS_TO_LPS @ ijkToRas(volumeNode)).encode())
        for start in range(0, len(array), rows):
            file.write(array[start : start + rows])
            yield


def importMask(path: str | Path, volumeNode) -> np.ndarray:
    """A mask file (NRRD of uint8) on the volume's grid, as [z, y, x] of the node's array; nothing is resampled.

    An uncompressed file, such as the worker's, is mapped: nothing of it is read before it is looked at.

    Raises:
        SAMMixError: the file is damaged or of another kind, or lies on another grid.
    """
    path, shape = Path(path), volumeNode.GetImageData().GetDimensions()[::-1]
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        with path.open("rb") as file:
            header, end, _ = file.read(1 << 16).partition(b"\n\n")
    except (OSError, RuntimeError):
        raise SAMMixError(f"{path}: cannot be read; segment the volume again") from None
    moved = axialGrid(volumeNode).apart_from(AxialGrid.of(reader))
    if reader.GetSize() != shape[::-1] or moved > SAME_VOXEL:
        raise SAMMixError(f"{volumeNode.GetName()}: its grid has changed since it was segmented; segment it again")
    if b"encoding: raw" not in header:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    start = len(header) + len(end)
    if path.stat().st_size != start + math.prod(shape):
        raise SAMMixError(f"{path}: is no whole mask; segment the volume again")
    return np.memmap(path, np.uint8, "r", start, shape)


def importSlices(path: str | Path, slices: Sequence[int], volumeNode) -> np.ndarray:
    """A file of some slices of the volume's axial stack (uint8 [n, rows, columns]) as [z, y, x] of the node's array.

    Raises:
        SAMMixError: the file is damaged, or of another size.
    """
    try:
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        raise SAMMixError(f"{path}: cannot be read; segment the volume again") from None
    array = np.zeros(volumeNode.GetImageData().GetDimensions()[::-1], np.uint8)
    stack = toStack(array, volumeNode)
    if found.shape != (len(slices), *stack.shape[1:]):
        raise SAMMixError(f"{volumeNode.GetName()}: its grid has changed since it was segmented; segment it again")
    stack[list(slices)] = found
    return array


def _nrrdHeader(array: np.ndarray, toLps: np.ndarray) -> str:
    vectors = [f"({','.join(f'{value!r}' for value in column)})" for column in toLps[:3].T.tolist()]
    return "\n".join([
        "NRRD0004",
        f"type: {NRRD_TYPES.get(array.dtype.name, array.dtype.name)}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape[::-1]))}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        f"endian: {'little' if np.little_endian else 'big'}",
        "encoding: raw",
        f"space origin: {vectors[3]}",
        "\n",
    ])  # fmt: skip


def _warnings(volumeNode, lowest: float, highest: float) -> list[str]:
    name, warnings = volumeNode.GetName(), []
    modality = _modality(volumeNode)
    if modality not in ("", "CT"):
        warnings.append(f"{name}: its DICOM modality is {modality}, not CT; the mask will mean nothing.")
    sample = slicer.util.arrayFromVolume(volumeNode).ravel()[::17]
    if np.count_nonzero((sample > -1100) & (sample < -200)) < 0.001 * sample.size:
        warnings.append(
            f"{name}: no air among its values of {lowest:g} to {highest:g}; unless it is cut to the body, it is no CT "
            "in HU (an MR, or without its offset of -1024)."
        )
    axes = axialGrid(volumeNode).axes
    if axes[0] != 2:
        warnings.append(f"{name}: not an axial stack; its {'IJ'[axes[0]]} axis, nearest to superior, counts as slices.")
    matrix = ijkToRas(volumeNode)[:3, :3]
    normal = np.cross(matrix[:, axes[1]], matrix[:, axes[2]])
    tilt = math.degrees(math.acos(min(1.0, abs(normal[2]) / np.linalg.norm(normal))))
    if tilt > TILT:
        warnings.append(f"{name}: its slices are tilted by {tilt:.0f} degrees; the model knows axial slices.")
    return warnings


def _modality(volumeNode) -> str:
    """The DICOM modality that Slicer keeps at the volume or its series, or nothing."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volumeNode)
    return hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
