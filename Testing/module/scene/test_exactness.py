"""Masks and boxes on random geometries: what is written is read back, voxel for voxel and pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from geometries import Geometry, export, geometries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from SAMMixLib.imaging.volume import Volume, read_volume
from SAMMixLib.imaging.writing import write_mask
from SAMMixLib.module.scene.boxes import boxNode, readBox, showBox
from SAMMixLib.module.scene.geometry import ijkToRas, stackShape, stackToRas, toStack
from SAMMixLib.module.scene.navigate import currentSlice, jumpToSlice
from SAMMixLib.module.scene.segments import createSegmentation, findSegment, readSegment, writeSegment
from SAMMixLib.module.scene.volume import importMask

FIFTY = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def fresh(scene):
    """Empties the scene between the examples of one test."""

    def clear() -> None:
        for name in ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLTransformNode", "vtkMRMLMarkupsNode"):
            for node in slicer.util.getNodesByClass(name):
                scene.RemoveNode(node)

    return clear


@FIFTY
@given(geometries())
def test_masks_come_back_identical(fresh, geometry: Geometry):
    fresh()
    volume, mask = geometry.volume(), geometry.mask()
    node = createSegmentation(volume)
    writeSegment(mask, volume, node)
    assert np.array_equal(readSegment(node, volume), mask)
    if mask.any():  # as Slicer itself exports it
        assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, findSegment(node), volume), mask)


@FIFTY
@given(geometries(), st.data())
def test_single_slices_leave_the_others_and_the_neighbours_as_they_are(fresh, geometry: Geometry, data):
    fresh()
    volume = geometry.volume()
    node = createSegmentation(volume)
    tumour = addSegment(node, volume, "tumour", neighbour := geometry.mask(0.5)[::-1])
    before = geometry.mask() & ~neighbour
    writeSegment(before, volume, node)
    slices = data.draw(st.sets(st.integers(0, stackShape(volume)[0] - 1)))
    writeSegment(new := ~before, volume, node, slices)
    expected = before.copy()
    toStack(expected, volume)[list(slices)] = toStack(new & ~neighbour, volume)[list(slices)]
    assert np.array_equal(readSegment(node, volume), expected)
    assert np.array_equal(segmentArray(node, volume, tumour), neighbour)


@FIFTY
@given(geometries(), st.data())
def test_a_box_survives_the_roi(fresh, geometry: Geometry, data):
    fresh()
    volume = geometry.volume()
    slices, rows, columns = stackShape(volume)
    i0, i1 = sorted(data.draw(st.tuples(*[st.integers(0, columns - 1)] * 2)))
    j0, j1 = sorted(data.draw(st.tuples(*[st.integers(0, rows - 1)] * 2)))
    k = data.draw(st.integers(0, slices - 1))
    roi = boxNode(volume)
    showBox(roi, volume, k, (i0, j0, i1, j1))
    assert readBox(roi, volume) == (k, (i0, j0, i1, j1))
    objectToNode = slicer.util.arrayFromVTKMatrix(roi.GetObjectToNodeMatrix())
    assert np.linalg.det(objectToNode) == pytest.approx(1)
    box = np.zeros((slices, rows, columns), bool)
    box[k, j0 : j1 + 1, i0 : i1 + 1] = True
    inObject = (stackCentres(volume) - objectToNode[:3, 3]) @ objectToNode[:3, :3]
    assert np.array_equal((np.abs(inObject) < np.array(roi.GetSize()) / 2).all(axis=1), box.ravel())


@FIFTY
@given(geometries(), st.data())
def test_the_view_shows_the_slice_it_jumped_to(fresh, geometry: Geometry, data):
    fresh()
    volume = geometry.volume()
    k = data.draw(st.integers(0, stackShape(volume)[0] - 1))
    jumpToSlice(volume, k)
    assert currentSlice(volume) == k


@FIFTY
@given(geometries(warped=False))
def test_the_library_sees_the_same_stack_and_its_mask_comes_back(fresh, tmp_path, geometry: Geometry):
    fresh()
    geometry = Geometry((9, 9, *geometry.shape[2:]), geometry.matrix, geometry.parents, geometry.warp, geometry.seed)
    volume, mask = geometry.volume(), geometry.mask()
    read: Volume = read_volume(export(volume, tmp_path / "ct.nrrd"))
    stack = read.axial()
    assert np.array_equal(stack.array, toStack(slicer.util.arrayFromVolume(volume), volume))
    write_mask(stack.to_grid(toStack(mask, volume)), tmp_path / "mask.nrrd")
    assert np.array_equal(importMask(tmp_path / "mask.nrrd", volume), mask)


@FIFTY
@given(geometries(warped=False))
def test_the_stack_lies_where_its_voxels_lie(fresh, geometry: Geometry):
    fresh()
    volume = geometry.volume()
    k, j, i = np.indices(stackShape(volume)).reshape(3, -1)
    expected = np.stack([i, j, k, np.ones_like(i)], axis=1) @ stackToRas(volume).T
    assert np.allclose(stackCentres(volume), expected[:, :3])


def stackCentres(volume) -> np.ndarray:
    """[n, 3] RAS of the voxel centres in the order of the stack, by way of the node's own index."""
    z, y, x = np.indices(volume.GetImageData().GetDimensions()[::-1])
    index = [toStack(each, volume).ravel() for each in (x, y, z)]
    return (np.stack([*index, np.ones_like(index[0])], axis=1) @ ijkToRas(volume).T)[:, :3]


def addSegment(node, volume, name: str, mask: np.ndarray) -> str:
    """A segment as the Segment Editor makes one: in the label map that the segments share."""
    segmentId = node.GetSegmentation().AddEmptySegment(name, name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segmentId, volume)
    return segmentId


def segmentArray(node, volume, segmentId: str) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, volume)
