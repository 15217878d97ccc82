"""Whose liver a segmentation holds: which segmentation belongs to a volume, and which volume to a segmentation."""

from __future__ import annotations

import slicer
import vtk

from SAMMixLib.module.scene.geometry import ijkToRas
from SAMMixLib.module.scene.segments import findSegment
from SAMMixLib.structure import LIVER, Structure

MODEL = "SAMMix.model"  # node attribute of a segmentation that holds another model's result, for comparison
ROUNDING = 1e-3  # mm by which the matrices of one geometry may differ


def referenceVolume(segmentationNode):
    """The volume that a segmentation was made on, by its reference; None where none is kept or it is gone."""
    return segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())


def belongsTo(segmentationNode, volumeNode) -> bool:
    """Whether a segmentation was made on this volume: by its reference, or where it has none, by its geometry."""
    reference = referenceVolume(segmentationNode)
    return reference is volumeNode if reference is not None else _sameGeometry(segmentationNode, volumeNode)


def isForeign(segmentationNode, volumeNode) -> bool:
    """Whether a segmentation holds anything of another volume: writing there would mix up two patients."""
    return segmentationNode.GetSegmentation().GetNumberOfSegments() > 0 and not belongsTo(segmentationNode, volumeNode)


def foreignOwner(segmentationNode, volumeNode) -> str:
    """Whose scan a foreign segmentation is of, by the scan's name or its own; nothing where it is not foreign."""
    if not isForeign(segmentationNode, volumeNode):
        return ""
    return (referenceVolume(segmentationNode) or segmentationNode).GetName()


def ownSegmentation(volumeNode, structure: Structure = LIVER):
    """The volume's own segmentation, one that holds the structure before others; None where it has none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    own = [n for n in nodes if not n.GetHideFromEditors() and not n.GetAttribute(MODEL) and belongsTo(n, volumeNode)]
    return max(own, key=lambda node: findSegment(node, structure) is not None, default=None)


def showOwn(segmentationNode, volumeNode, left) -> None:
    """Show the volume's own segmentation, if it has one, and hide the one that was `left` where it is of another scan:
    one patient's liver does not lie over another's.
    """
    if left is not None and left.GetScene() and isForeign(left, volumeNode):
        left.SetDisplayVisibility(False)
    if segmentationNode:
        segmentationNode.SetDisplayVisibility(True)


def _sameGeometry(segmentationNode, volumeNode) -> bool:
    """Whether the segmentation's reference geometry is the volume's grid; False where none is kept."""
    image = slicer.vtkOrientedImageData()
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    text = segmentationNode.GetSegmentation().GetConversionParameter(name)
    if not text or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False):
        return False
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    off = abs(slicer.util.arrayFromVTKMatrix(matrix) - ijkToRas(volumeNode)).max()
    return volumeNode.GetImageData() is not None and off < ROUNDING and (
        image.GetDimensions() == volumeNode.GetImageData().GetDimensions()
    )  # fmt: skip
