"""The module's own way of a scan to the worker and of a mask back, on volumes that lie anyhow."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.segments import readSegment

TYPES = (np.int16, np.int16, np.uint16, np.int32, np.float32, np.float64, np.uint8)


def random_volume(seed: int):
    """A volume node on an oblique, maybe left-handed grid, maybe under a transform."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn = turn[:, random.permutation(3)] * random.choice([-1, 1], 3)
    matrix = np.eye(4)
    matrix[:3, :3] = turn * random.uniform(0.5, 5, 3)
    matrix[:3, 3] = random.uniform(-300, 300, 3)
    dtype = TYPES[seed % len(TYPES)]
    low, high = (0, 256) if dtype == np.uint8 else (0, 2000) if dtype == np.uint16 else (-1024, 1500)
    array = random.integers(low, high, random.integers(3, 16, 3)).astype(dtype)
    node = slicer.util.addVolumeFromArray(array, slicer.util.vtkMatrixFromArray(matrix))
    if random.random() < 0.5:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        moved = vtk.vtkTransform()
        moved.RotateWXYZ(random.uniform(0, 180), *random.normal(size=3))
        moved.Translate(random.uniform(-50, 50, 3))
        transform.SetMatrixTransformToParent(moved.GetMatrix())
        node.SetAndObserveTransformNodeID(transform.GetID())
    return node, array, random


@pytest.mark.parametrize("seed", range(50))
def test_a_mask_of_the_stack_comes_back_voxel_for_voxel(clinic, tmp_path, seed):
    node, array, random = random_volume(seed)
    case = Case(node)
    for _ in case.export(tmp_path / "volume.nrrd"):
        pass
    volume = read_volume(tmp_path / "volume.nrrd")
    assert np.array_equal(sitk.GetArrayFromImage(volume.image), np.maximum(array, -1024) if array.min() < 0 else array)
    stack = volume.axial()
    mask = random.random(stack.array.shape) < 0.4
    sitk.WriteImage(stack.to_grid(mask), str(tmp_path / "mask.nrrd"))
    for _ in case.write(tmp_path / "mask.nrrd", None):
        pass
    expected = sitk.GetArrayFromImage(stack.to_grid(mask))
    assert np.array_equal(readSegment(case.segmentationNode, node), expected)
    assert case.size()[0] == len(mask)
    pixel = stack.spacing[1] * stack.spacing[2]
    assert np.allclose(case.areas(), mask.sum(axis=(1, 2)) * pixel)
