"""The segment's surface in 3D, made beside the main thread: VTK's filters let Python go on while they work."""

from __future__ import annotations

import threading
from typing import Any

import slicer
import vtk

from SAMMixLib.module.scene.segments import LABELMAP, findSegment, holdsVoxels
from SAMMixLib.structure import LIVER, Structure

SURFACE = "Closed surface"
FINEST_MM = 1.2  # of the surface's grid; a finer scan is averaged down to this
SMOOTHING, PASS_BAND = 40, 0.01  # of the windowed sinc filter, as Slicer smooths by default (its factor 0.5)


class SurfaceMaker:
    """Makes one surface at a time; :meth:`poll` puts it into the scene.

    The views are to be turned to a segmentation when it is the first or another one that is shown, and not at each
    change of its surface. That is of this sitting: the scene that is saved holds nothing of it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._pipeline: Any = None  # the last of its filters
        self._for: tuple = ()  # segmentation, segment, and which of its voxels
        self._shown: tuple = ("", False)  # segmentation, and whether its surface is to be seen
        self._there = False  # that surface
        self._turnedTo = ""  # the segmentation that the views were turned to last

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
        self._there = on and segment is not None and segment.GetRepresentation(SURFACE) is not None
        if segment is None or not on or not image or self._there or not holdsVoxels(segmentationNode, segmentId):
            self._thread = None
        elif self._thread is None or self._for != wanted:
            copy = slicer.vtkOrientedImageData()
            copy.DeepCopy(image)
            self._for, self._pipeline = wanted, surfaceOf(copy, segment.GetLabelValue())
            self._thread = threading.Thread(target=self._pipeline.Update, daemon=True)
            self._thread.start()

    def poll(self) -> bool:
        """Put a surface that is ready into the scene; whether the views are to be turned to what is shown now."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            self._bringIn(*self._for)
        turn = self._there and self._turnedTo != self._shown[0]
        if turn:
            self._turnedTo = self._shown[0]
        return turn

    def forget(self) -> None:
        """The scene was closed."""
        self._thread, self._for, self._shown = None, (), ("", False)
        self._there, self._turnedTo = False, ""

    def _bringIn(self, node, segmentId: str, made: int) -> None:
        segment = node.GetSegmentation().GetSegment(segmentId) if node.GetScene() else None
        image = segment and segment.GetRepresentation(LABELMAP)
        if segment is None or not image or image.GetMTime() != made:
            return  # the voxels have changed since: whoever changed them starts anew
        segment.AddRepresentation(SURFACE, self._pipeline.GetOutput())
        node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(SURFACE)
        self._there = True


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
