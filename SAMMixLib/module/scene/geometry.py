"""Between a volume node's own voxel index (i, j, k), its axial stack, its RAS and that of another node."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.volume import axial_order

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ijkToRas(volumeNode) -> np.ndarray:
    """[4, 4] voxel index of the node's own grid -> mm in the node's own RAS, without its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def axialOrder(volumeNode) -> tuple[tuple[int, int, int], tuple[slice, ...]]:
    """``SAMMixLib.imaging.volume.axial_order`` of the node's own grid: the library and the scene agree on slices."""
    matrix = (RAS_TO_LPS @ ijkToRas(volumeNode))[:3, :3]
    return axial_order(matrix / np.linalg.norm(matrix, axis=0))


def toStack(array: np.ndarray, volumeNode) -> np.ndarray:
    """A view of an array of the node's grid [z, y, x] as its axial stack [k, j, i]; writing to it writes the array."""
    axes, flips = axialOrder(volumeNode)
    return array.transpose([2 - axis for axis in axes])[flips]


def stackShape(volumeNode) -> tuple[int, int, int]:
    """Slices, rows and columns of the axial stack."""
    axes, _ = axialOrder(volumeNode)
    size = volumeNode.GetImageData().GetDimensions()
    return tuple(size[axis] for axis in axes)


def stackToRas(volumeNode) -> np.ndarray:
    """[4, 4] stack index (i, j, k, 1) -> mm in the node's own RAS."""
    axes, flips = axialOrder(volumeNode)
    size = volumeNode.GetImageData().GetDimensions()
    toIjk = np.zeros((4, 4))
    toIjk[3, 3] = 1
    for column, (axis, flip) in enumerate(zip(axes[::-1], flips[::-1], strict=True)):
        toIjk[axis, column] = flip.step
        toIjk[axis, 3] = size[axis] - 1 if flip.step < 0 else 0
    return ijkToRas(volumeNode) @ toIjk


def nodeToNode(source, target) -> np.ndarray:
    """[4, 4] mm in the source node's RAS -> mm in the target's, through their parent transforms.

    Raises:
        SAMMixError: a transform that is not linear lies between them.
    """
    one, other = source.GetParentTransformNode(), target.GetParentTransformNode()
    if one is other:
        return np.eye(4)
    if not (one or other).IsTransformToNodeLinear(other if one else None):
        raise SAMMixError(
            f"{target.GetName()}: a non-linear transform lies between it and {source.GetName()}; "
            "put both under the same transform"
        )
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(one, other, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def toWorld(points: np.ndarray, node) -> np.ndarray:
    """Points [n, 3] in the node's RAS -> mm in the world, through any parent transform."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, transform)
    return np.array([transform.TransformPoint(*point) for point in points])
