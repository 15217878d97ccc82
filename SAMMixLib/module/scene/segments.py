"""A structure's segment: found by its code, written without touching its neighbours, read back voxel for voxel."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import SAME_VOXEL
from SAMMixLib.module.scene.geometry import ijkToRas, nodeToNode, toStack
from SAMMixLib.module.scene.hygiene import place
from SAMMixLib.structure import ALTERED, LIVER, SRT, Structure

LABELMAP = "Binary labelmap"
FILL, OUTLINE = 0.1, 3  # of a new segment in slices: a light fill, and pixels of an outline that is seen through all
COLORS = {LIVER.code: (0.2, 0.9, 0.85)}  # neither parenchyma nor heat map has this hue; others keep their own


def createSegmentation(volumeNode, structure: Structure = LIVER):
    """A new, empty segmentation node for the volume, in the volume's folder of the subject hierarchy."""
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} {structure.name}")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetOpacity2DFill(FILL)
    node.GetDisplayNode().SetSliceIntersectionThickness(OUTLINE)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    place(node, volumeNode)
    return node


def makeSegment(volumeNode, segmentationNode, structure: Structure) -> tuple[Any, str]:
    """An empty segment of the structure to draw in, and its segmentation: a new one where there is none."""
    node = segmentationNode or createSegmentation(volumeNode, structure)
    return node, findSegment(node, structure) or _add(node, structure)


def findSegment(segmentationNode, structure: Structure = LIVER) -> str | None:
    """The id of the segment whose type is the structure by its code, whatever its name; a lesion in it is not."""
    codes = (f"SCT^{structure.code}^", f"SRT^{SRT.get(structure.code, structure.code)}^")
    segmentation = segmentationNode.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        fields = segmentation.GetSegment(segmentId).GetTerminology().split("~")
        if len(fields) > 2 and fields[2].startswith(codes):
            return segmentId
    return None


@dataclass(frozen=True)
class Brush:
    """What is written, and what of the Segment Editor's settings limits it.

    ``editor`` is the ``vtkMRMLSegmentEditorNode`` whose masking (inside which segments, which intensities) is obeyed,
    and whose overwrite mode "allow overlap" lets the segment overlap its neighbours.
    """

    structure: Structure = LIVER
    editor: Any = None

    def masked(self, segmentationNode) -> bool:
        """Whether the user has limited where can be edited."""
        everywhere = segmentationNode.EditAllowedEverywhere
        return self.editor is not None and (
            self.editor.GetMaskMode() != everywhere or bool(self.editor.GetSourceVolumeIntensityMask())
        )

    @property
    def overlaps(self) -> bool:
        """Whether it may claim what another segment holds."""
        allowed = self.editor is not None and self.editor.GetOverwriteMode() == self.editor.OverwriteNone
        return allowed or self.structure.category == ALTERED


def writeSegment(
    mask: np.ndarray,
    volumeNode,
    segmentationNode,
    slices: Iterable[int] | None = None,
    brush: Brush = Brush(),
) -> bool:
    """Write the structure's segment, adding it where there is none.

    No voxel of another segment changes. None is claimed that another segment holds, unless the user lets segments
    overlap, or the structure is an altered one, such as a tumour, which lies in an organ. The segment's own name,
    colour and closed surface stay.

    Args:
        mask: bool or uint8 [z, y, x], the volume node's own array.
        slices: the k of the axial stack to write; the segment keeps its voxels in all others. All by default.
        brush: the structure, and the user's settings.

    Returns:
        Whether the segment is the mask in what was to be written: nothing was masked, and no neighbour met.

    Raises:
        SAMMixError: the mask is not of the volume's size, or the segmentation holds segments on another grid, or
            surfaces instead of label maps. Nothing is changed then.
    """
    shape = volumeNode.GetImageData().GetDimensions()[::-1]
    if mask.shape != shape:
        raise SAMMixError(f"a mask of {mask.shape[::-1]} voxels is not of the size of {volumeNode.GetName()}")
    if segmentationNode.GetSegmentation().GetSourceRepresentationName() != LABELMAP:
        raise SAMMixError(f"{segmentationNode.GetName()}: holds surfaces, not label maps; choose another segmentation")
    own, masked = findSegment(segmentationNode, brush.structure), brush.masked(segmentationNode)
    neighbours = [each for each in _filled(segmentationNode) if each != own]
    keep = bool(neighbours) or slices is not None or masked
    if not keep:
        segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    grid = nodeToNode(volumeNode, segmentationNode) @ ijkToRas(volumeNode)
    current = _voxels(segmentationNode, own, grid, shape) if own and keep else None
    # Only this part of the volume holds any of it, before or after: a thin-slice scan is five times as large.
    box = bounds(mask) if current is None else tuple(map(_hull, bounds(mask), bounds(current)))
    mask = np.asarray(mask[box]) != 0
    current = np.zeros_like(mask) if current is None else current[box]
    wanted = new = mask
    if slices is not None:
        chosen = np.zeros(shape, bool)
        toStack(chosen, volumeNode)[list(slices)] = True
        wanted = new = np.where(chosen[box], mask, current)
    if masked:
        new = np.where(_editable(brush.editor, segmentationNode, own, volumeNode, grid)[box], new, current)
    others = np.zeros_like(mask)
    for each in neighbours:
        others |= _voxels(segmentationNode, each, grid, shape)[box]
    if not brush.overlaps:
        new = new & (current | ~others)
    corner = [side.start for side in box]
    _store(new, corner, grid, segmentationNode, own or _add(segmentationNode, brush.structure))
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    return new is wanted or np.array_equal(new, wanted)


def readSegment(segmentationNode, volumeNode, structure: Structure = LIVER) -> np.ndarray:
    """The structure's segment as uint8 [z, y, x] of the volume node's array; zeros where there is none.

    Exact where both share one grid. Elsewhere (one was moved since, or hardened by a non-linear transform) the segment
    is resampled onto the volume, nearest neighbour, through the parent transforms of both.
    """
    shape = volumeNode.GetImageData().GetDimensions()[::-1]
    own = findSegment(segmentationNode, structure)
    if own not in _filled(segmentationNode):
        return np.zeros(shape, np.uint8)
    try:
        grid = nodeToNode(volumeNode, segmentationNode) @ ijkToRas(volumeNode)
        return _voxels(segmentationNode, own, grid, shape).view(np.uint8)
    except SAMMixError:
        return slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, own, volumeNode)


def _filled(segmentationNode) -> list[str]:
    """The segments that hold any voxel."""
    return [i for i in segmentationNode.GetSegmentation().GetSegmentIDs() if holdsVoxels(segmentationNode, i)]


def holdsVoxels(segmentationNode, segmentId: str) -> bool:
    """Whether there is any voxel in a segment."""
    image = _labelmap(segmentationNode, segmentId)
    return bool(image) and not image.IsEmpty() and bool(_isOn(segmentationNode, segmentId).any())


def _labelmap(segmentationNode, segmentId: str):
    """The segment's own or shared label map, not copied; None where it has none."""
    return segmentationNode.GetSegmentation().GetSegment(segmentId).GetRepresentation(LABELMAP)


def _isOn(segmentationNode, segmentId: str) -> np.ndarray:
    """bool [z, y, x] over the extent of the segment's label map."""
    image = _labelmap(segmentationNode, segmentId)
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    return values == segmentationNode.GetSegmentation().GetSegment(segmentId).GetLabelValue()


def _voxels(segmentationNode, segmentId: str, grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A segment as bool [z, y, x] of ``shape`` on ``grid`` ([4, 4], voxel index -> mm in the segmentation's RAS)."""
    voxels = np.zeros(shape, bool)
    if segmentId not in _filled(segmentationNode):
        return voxels
    image = _labelmap(segmentationNode, segmentId)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent = np.reshape(image.GetExtent(), (3, 2)).T
    toGrid = np.linalg.inv(grid) @ slicer.util.arrayFromVTKMatrix(matrix)
    shift = np.rint(toGrid[:3, 3]).astype(int)
    corners = np.array(list(itertools.product(*extent.T)))
    if np.abs(corners @ toGrid[:3, :3].T + toGrid[:3, 3] - corners - shift).max() > SAME_VOXEL:
        name = segmentationNode.GetSegmentation().GetSegment(segmentId).GetName()
        raise SAMMixError(
            f"{segmentationNode.GetName()}: its segment {name} lies on another grid than the volume; "
            "choose another segmentation, or a new one"
        )
    first, last = extent + shift
    low, high = np.maximum(first, 0), np.minimum(last + 1, shape[::-1])
    if (low < high).all():
        inside = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        cut = tuple(slice(*ends) for ends in zip(low - first, high - first, strict=True))
        voxels[inside[::-1]] = _isOn(segmentationNode, segmentId)[cut[::-1]]
    return voxels


def bounds(array: np.ndarray) -> tuple[slice, ...]:
    """The box of the voxels that are not zero, one voxel where there are none."""
    planes = np.flatnonzero(array.max(axis=(1, 2)))
    if not planes.size:
        return (slice(0, 1),) * 3
    plane = array[planes[0] : planes[-1] + 1].max(axis=0)
    rows, columns = np.flatnonzero(plane.max(axis=1)), np.flatnonzero(plane.max(axis=0))
    return tuple(slice(int(each[0]), int(each[-1]) + 1) for each in (planes, rows, columns))


def _hull(one: slice, other: slice) -> slice:
    return slice(min(one.start, other.start), max(one.stop, other.stop))


def _image(array: np.ndarray, corner: Sequence[int], grid: np.ndarray):
    """An oriented image of the bounding box of the voxels that are not zero.

    ``corner`` is the voxel [z, y, x] of the grid where the array begins. Without any the image holds 2 x 2 x 2
    zeros: Slicer cannot make a surface of less.
    """
    image = slicer.vtkOrientedImageData()
    if not array.any():
        array = np.zeros((2, 2, 2), bool)
        box = (slice(0, 2),) * 3
    else:
        box = bounds(array)
    first = [side.start + start for side, start in zip(box, corner, strict=True)][::-1]
    last = [side.stop - 1 + start for side, start in zip(box, corner, strict=True)][::-1]
    extent = [int(end) for ends in zip(first, last, strict=True) for end in ends]
    image.SetExtent(extent)
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(grid))
    voxels = numpy_to_vtk(np.ascontiguousarray(array[box]).astype(np.uint8).ravel(), deep=True)
    image.GetPointData().SetScalars(voxels)
    return image


def _editable(editor, segmentationNode, segmentId: str | None, volumeNode, grid: np.ndarray) -> np.ndarray:
    """bool [z, y, x]: where the Segment Editor's masking lets the user edit the segment."""
    array = slicer.util.arrayFromVolume(volumeNode)
    reference = slicer.vtkOrientedImageData()
    reference.ShallowCopy(volumeNode.GetImageData())
    reference.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(grid))
    forbidden = slicer.vtkOrientedImageData()
    intensities = [reference, editor.GetSourceVolumeIntensityMaskRange()]
    segmentationNode.GenerateEditMask(
        forbidden,
        editor.GetMaskMode(),
        reference,
        segmentId or "",
        editor.GetMaskSegmentID() or "",
        *(intensities if editor.GetSourceVolumeIntensityMask() else ()),
    )
    return vtk_to_numpy(forbidden.GetPointData().GetScalars()).reshape(array.shape) == 0


def _add(segmentationNode, structure: Structure) -> str:
    segmentation = segmentationNode.GetSegmentation()
    unique = segmentation.GenerateUniqueSegmentID(structure.name)
    segmentId = segmentation.AddEmptySegment(unique, structure.name, COLORS.get(structure.code, structure.rgb))
    segmentation.GetSegment(segmentId).SetTerminology(structure.terminology)
    return segmentId


def _store(mask: np.ndarray, corner: Sequence[int], grid: np.ndarray, segmentationNode, segmentId: str) -> None:
    """Put the mask, which begins at voxel ``corner`` [z, y, x], into a label map that is the segment's alone.

    The logic makes the closed surface again where there was one.
    """
    segmentation = segmentationNode.GetSegmentation()
    segmentation.SeparateSegmentLabelmap(segmentId)
    image = _image(mask, corner, grid)
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(image, segmentationNode, segmentId)
