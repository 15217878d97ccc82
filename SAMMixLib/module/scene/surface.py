"""The segment's surface in 3D, made beside the main thread: VTK's filters let Python go on while they work."""

from __future__ import annotations

import threading
from typing import Any

import slicer
import vtk

from SAMMixLib.module.scene.segments import LABELMAP, findSegment, holdsVoxels
from SAMMixLib.structure import LIVER, Structure

SURFACE = "Closed surface"
SEEN = "SAMMix.3D"  # node attribute: the segmentation was in the 3D view once, which was turned to it then
FINEST_MM = 1.2  # of the surface's grid; a finer scan is averaged down to this
SMOOTHING, PASS_BAND = 15, 0.05  # of the windowed sinc filter: rounds the steps between slices


class SurfaceMaker:
    """Makes one surface at a time; :meth:`poll` puts it into the scene."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._pipeline: Any = None  # the last of its filters
        self._for: tuple = ()  # segmentation, segment, and which of its voxels
        self._shown: tuple = ()  # segmentation, and whether its surface is to be seen

    @property
    def busy(self) -> bool:
        return self._thread is not None

    def show(self, segmentationNode, on: bool, structure: Structure = LIVER) -> None:
        """Show a segment in 3D or hide it; the surface is begun where there is none. One being made is given up."""
        if self._shown != (segmentationNode.GetID(), on):
            self._shown = (segmentationNode.GetID(), on)
            segmentationNode.GetDisplayNode().SetVisibility3D(on)
        segmentId = findSegment(segmentationNode, structure) or ""
        segment = segmentationNode.GetSegmentation().GetSegment(segmentId) if segmentId else None
        image = segment and segment.GetRepresentation(LABELMAP)
        wanted = (segmentationNode, segmentId, image.GetMTime() if image else 0)
        if (
            segment is None
            or not on
            or not image
            or segment.GetRepresentation(SURFACE)
            or not holdsVoxels(segmentationNode, segmentId)
        ):
            self._thread = None
        elif self._thread is None or self._for != wanted:
            copy = slicer.vtkOrientedImageData()
            copy.DeepCopy(image)
            self._for, self._pipeline = wanted, surfaceOf(copy, segment.GetLabelValue())
            self._thread = threading.Thread(target=self._pipeline.Update, daemon=True)
            self._thread.start()

    def poll(self) -> bool:
        """Put a surface that is ready into the scene; whether it is the first of its segmentation."""
        if self._thread is None or self._thread.is_alive():
            return False
        self._thread = None
        node, segmentId, made = self._for
        segment = node.GetSegmentation().GetSegment(segmentId) if node.GetScene() else None
        image = segment and segment.GetRepresentation(LABELMAP)
        if segment is None or not image or image.GetMTime() != made:
            return False  # the voxels have changed since: whoever changed them starts anew
        segment.AddRepresentation(SURFACE, self._pipeline.GetOutput())
        node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(SURFACE)
        first = not node.GetAttribute(SEEN)
        node.SetAttribute(SEEN, "true")
        return first


def removeSurface(segmentationNode) -> None:
    """Take the surfaces away, so that a write does not make them anew on the main thread."""
    if segmentationNode.GetSegmentation().ContainsRepresentation(SURFACE):
        segmentationNode.GetSegmentation().RemoveRepresentation(SURFACE)


def surfaceOf(image, value: int):
    """A pipeline that makes the surface of the voxels of an oriented image that have the value.

    Its output, after ``Update``, is ``vtkPolyData`` in the segmentation's RAS, mm.
    """
    toWorld = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(toWorld)
    spacing = image.GetSpacing()
    plain = vtk.vtkImageData()
    plain.ShallowCopy(image)
    plain.SetOrigin(0, 0, 0)
    plain.SetSpacing(1, 1, 1)
    inside = vtk.vtkImageThreshold()
    inside.SetInputData(plain)
    inside.ThresholdBetween(value, value)
    inside.SetInValue(255)
    inside.SetOutValue(0)
    inside.SetOutputScalarTypeToUnsignedChar()
    factors = [max(1, int(FINEST_MM / side)) for side in spacing]
    low, high = image.GetExtent()[0::2], image.GetExtent()[1::2]
    padded = vtk.vtkImageConstantPad()  # a surface that is closed where the segment ends with the scan
    padded.SetInputConnection(inside.GetOutputPort())
    ends = [(a - 2 * f, b + 2 * f) for a, b, f in zip(low, high, factors, strict=True)]
    padded.SetOutputWholeExtent(*(end for pair in ends for end in pair))
    shrunk = vtk.vtkImageShrink3D()
    shrunk.SetInputConnection(padded.GetOutputPort())
    shrunk.SetShrinkFactors(*factors)
    shrunk.AveragingOn()
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputConnection(shrunk.GetOutputPort())
    contour.SetValue(0, 127.5)
    contour.ComputeNormalsOff()
    contour.ComputeScalarsOff()
    transform = vtk.vtkTransform()
    transform.SetMatrix(toWorld)
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetInputConnection(contour.GetOutputPort())
    moved.SetTransform(transform)
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(moved.GetOutputPort())
    smooth.SetNumberOfIterations(SMOOTHING)
    smooth.SetPassBand(PASS_BAND)
    smooth.NormalizeCoordinatesOn()
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(smooth.GetOutputPort())
    normals.SplittingOff()
    normals.ConsistencyOn()
    normals.AutoOrientNormalsOn()
    return normals
