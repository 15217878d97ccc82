"""Between the slice k of a volume's axial stack and the plane that the red slice view shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import slicer
import vtk

from SAMMixLib.module.scene.geometry import stackShape, stackToRas, toWorld
from SAMMixLib.module.scene.observe import Watch

RED = "vtkMRMLSliceNodeRed"


def currentSlice(volumeNode) -> int | None:
    """The slice k that the red view shows, None where its plane lies off the stack or the node holds no voxels.

    Where view and stack are not parallel it is the slice whose centre lies nearest to the plane.
    """
    if volumeNode.GetImageData() is None or min(volumeNode.GetImageData().GetDimensions()) < 1:
        return None
    centres = _centres(volumeNode)
    plane = slicer.util.arrayFromVTKMatrix(_redNode().GetSliceToRAS())
    distances = np.abs((centres - plane[:3, 3]) @ plane[:3, 2])
    k = int(distances.argmin())
    step = np.linalg.norm(np.diff(centres[max(k - 1, 0) : k + 2], axis=0), axis=1) if len(centres) > 1 else [np.inf]
    return k if distances[k] <= max(step) * 0.501 else None


def jumpToSlice(volumeNode, k: int) -> None:
    """Move the red view's plane through the centre of slice k; zoom and position in the plane stay."""
    _redNode().JumpSliceByOffsetting(*_centres(volumeNode)[k])


def alignView(volumeNode) -> None:
    """Turn the red view parallel to the slices of an oblique stack, so that it shows one slice, no cut through many."""
    _redNode().RotateToVolumePlane(volumeNode)


def nextToReview(review: Sequence[int], k: int | None) -> int | None:
    """The slice after k in the list of slices to look at, worst first; the first where k is not one or the last."""
    if not review:
        return None
    if k is None or k not in review:
        return review[0]
    return review[(list(review).index(k) + 1) % len(review)]


def watchSlice(volumeNode, callback: Callable[[int | None], None]) -> Watch:
    """Call ``callback(k)`` whenever the red view comes to another slice of the volume."""
    seen = [currentSlice(volumeNode)]

    def look(_) -> None:
        k = currentSlice(volumeNode)
        if k != seen[0]:
            seen[0] = k
            callback(k)

    return Watch(_redNode(), (vtk.vtkCommand.ModifiedEvent,), look)


def _redNode():
    return slicer.mrmlScene.GetNodeByID(RED)


def _centres(volumeNode) -> np.ndarray:
    """[k, 3] centres of the slices in the world."""
    slices, rows, columns = stackShape(volumeNode)
    indices = np.tile([(columns - 1) / 2, (rows - 1) / 2, 0.0, 1.0], (slices, 1))
    indices[:, 2] = range(slices)
    return toWorld((indices @ stackToRas(volumeNode).T)[:, :3], volumeNode)
