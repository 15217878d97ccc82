"""Random grids and parent transforms for hypothesis: oblique, permuted, flipped, anisotropic, far from the origin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from hypothesis import strategies as st

from SAMMixLib.module.scene.volume import exportVolume


@dataclass(frozen=True)
class Geometry:
    shape: tuple[int, int, int]  # z, y, x
    matrix: np.ndarray  # index -> RAS
    parents: tuple[np.ndarray, ...]  # linear transforms, the outermost last
    warp: bool  # a non-linear transform around all of them
    seed: int  # of the voxels

    def mask(self, share: float = 0.3) -> np.ndarray:
        return np.random.default_rng(self.seed).random(self.shape) < share

    def volume(self, name: str = "CT"):
        array = np.random.default_rng(self.seed).integers(-1024, 400, self.shape).astype(np.int16)
        node = slicer.util.addVolumeFromArray(array, self.matrix, name)
        outer = warp() if self.warp else None
        for matrix in reversed(self.parents):
            outer = linear(matrix, outer)
        if outer is not None:
            node.SetAndObserveTransformNodeID(outer.GetID())
        return node


def export(volumeNode, path: Path) -> Path:
    """The node's voxels as a file, all steps at once."""
    for _ in exportVolume(volumeNode, path):
        pass
    return path


def linear(matrix: np.ndarray, parent=None):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def warp():
    """A thin plate spline that bends the neighbourhood of the origin by some millimetres."""
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in np.ndindex(2, 2, 2):
        source.InsertNextPoint(*(np.array(corner) * 200.0 - 100))
        target.InsertNextPoint(*(np.array(corner) * 200.0 - 100 + 5 * np.sin(np.arange(3) + 7 * np.array(corner))))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    node.SetAndObserveTransformToParent(spline)
    return node


def rotation(generator: np.random.Generator) -> np.ndarray:
    turned, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    return turned


@st.composite
def geometries(draw, warped: bool = True) -> Geometry:
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["axial", "permuted", "oblique", "nearly axial"]))
    axes = np.diag([-1.0, -1.0, 1.0])
    if kind == "permuted":
        axes = axes[:, generator.permutation(3)]
    elif kind == "oblique":
        axes = rotation(generator)
    elif kind == "nearly axial":
        axes, _ = np.linalg.qr(axes + 0.05 * generator.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = axes * generator.choice([-1, 1], 3) * generator.uniform(0.3, 5, 3)
    matrix[:3, 3] = generator.uniform(-300, 300, 3)
    parents = []
    for kind in draw(st.lists(st.sampled_from(["rigid", "affine"]), max_size=2)):
        parent = np.eye(4)
        parent[:3, :3] = rotation(generator)
        parent[:3, 3] = generator.uniform(-50, 50, 3)
        if kind == "affine":
            parent[:3, :3] = parent[:3, :3] @ (np.eye(3) + 0.2 * generator.normal(size=(3, 3)))
        parents.append(parent)
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    return Geometry(shape, matrix, tuple(parents), warped and draw(st.booleans()), seed)
