"""Between a volume node's own voxel index (i, j, k), its axial stack, its RAS and that of another node."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import RAS_TO_LPS, AxialGrid


def ijkToRas(volumeNode) -> np.ndarray:
    """[4, 4] voxel index of the node's own grid -> mm in the node's own RAS, without its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def axialGrid(volumeNode) -> AxialGrid:
    """The node's own grid as the library sees it: the library and the scene agree on slices."""
    return AxialGrid.from_affine(RAS_TO_LPS @ ijkToRas(volumeNode), volumeNode.GetImageData().GetDimensions())


def toStack(array: np.ndarray, volumeNode) -> np.ndarray:
    """A view of an array of the node's grid [z, y, x] as its axial stack [k, j, i]; writing to it writes the array."""
    return axialGrid(volumeNode).to_stack(array)


def stackShape(volumeNode) -> tuple[int, int, int]:
    """Slices, rows and columns of the axial stack."""
    return axialGrid(volumeNode).shape


def stackToRas(volumeNode) -> np.ndarray:
    """[4, 4] stack index (i, j, k, 1) -> mm in the node's own RAS."""
    return axialGrid(volumeNode).stack_to_ras


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
    parent = node.GetParentTransformNode()
    if parent is None:
        return points
    if parent.IsTransformToWorldLinear():
        matrix = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(matrix)
        toWorld = slicer.util.arrayFromVTKMatrix(matrix)
        return points @ toWorld[:3, :3].T + toWorld[:3, 3]
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, transform)
    return np.array([transform.TransformPoint(*point) for point in points])
