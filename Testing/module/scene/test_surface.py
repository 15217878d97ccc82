"""The surface in 3D: closed, where the voxels are, and gone with them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import vtk

from SAMMixLib.module.scene.segments import createSegmentation, writeSegment
from SAMMixLib.module.scene.surface import SURFACE, SurfaceMaker, removeSurface

SHAPE = (12, 40, 50)


def ellipsoid() -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    return ((z - 6) / 4) ** 2 + ((y - 20) / 14) ** 2 + ((x - 24) / 17) ** 2 < 1


def made(maker: SurfaceMaker) -> bool:
    """Wait for the surface; whether the views are to be turned to it."""
    until = time.monotonic() + 20
    while maker.busy and time.monotonic() < until:
        if maker.poll():
            return True
        time.sleep(0.01)
    return False


def surface(node):
    segmentation = node.GetSegmentation()
    return segmentation.GetSegment(segmentation.GetSegmentIDs()[0]).GetRepresentation(SURFACE)


@pytest.fixture
def written(makeVolume):
    matrix = np.array([[-1.5, 0, 0, 30], [0, -0.8, 0.9, -80], [0, 0.6, 1.2, 600], [0, 0, 0, 1.0]])
    volume = makeVolume(SHAPE, matrix)
    node = createSegmentation(volume)
    writeSegment(ellipsoid(), volume, node)
    return volume, node, matrix


def test_the_surface_is_closed_and_lies_where_the_voxels_lie(written):
    _, node, matrix = written
    maker = SurfaceMaker()
    maker.show(node, True)
    assert made(maker) and node.GetDisplayNode().GetVisibility3D()
    mass, edges = vtk.vtkMassProperties(), vtk.vtkFeatureEdges()
    mass.SetInputData(surface(node))
    expected = ellipsoid().sum() * abs(np.linalg.det(matrix[:3, :3]))
    assert mass.GetVolume() == pytest.approx(expected, rel=0.1)
    edges.SetInputData(surface(node))
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    assert edges.GetOutput().GetNumberOfCells() == 0
    middle = vtk.vtkCenterOfMass()
    middle.SetInputData(surface(node))
    middle.Update()
    assert np.allclose(middle.GetCenter(), (matrix @ [24, 20, 6, 1])[:3], atol=1.0)


def test_hidden_shown_again_and_made_anew_after_a_write(written):
    volume, node, _ = written
    maker = SurfaceMaker()
    maker.show(node, False)
    assert not maker.busy and not node.GetDisplayNode().GetVisibility3D() and surface(node) is None
    maker.show(node, True)
    assert made(maker)
    first = surface(node)
    maker.show(node, True)
    assert not maker.busy  # it is there
    removeSurface(node)
    writeSegment(ellipsoid()[::-1], volume, node)
    maker.show(node, True)
    assert maker.busy and not made(maker), "the view was turned to it once"
    assert surface(node) is not None and surface(node) is not first


def test_the_views_are_turned_to_each_segmentation_that_comes_to_be_shown(written):
    volume, node, _ = written
    maker = SurfaceMaker()
    maker.show(node, True)
    assert made(maker)
    other = createSegmentation(volume)
    writeSegment(ellipsoid(), volume, other)
    maker.show(other, True)
    assert made(maker), "another scan's liver may lie anywhere"
    for expected in (True, False):
        maker.show(node, True)
        assert not maker.busy and maker.poll() is expected, "back at the first, once"
    maker.show(node, False)
    maker.show(node, True)
    assert not maker.poll(), "hidden and shown again: the user has turned it as he likes"
    later = SurfaceMaker()  # in another sitting, of a scene that was saved with its surface
    later.show(node, True)
    assert later.poll()
    later.forget()
    later.show(node, True)
    assert later.poll(), "another scene's node may have the same name"


def test_what_changed_meanwhile_is_not_shown(written):
    volume, node, _ = written
    maker = SurfaceMaker()
    maker.show(node, True)
    writeSegment(np.roll(ellipsoid(), 3, axis=2), volume, node)
    assert not made(maker) and surface(node) is None


def test_an_empty_segment_has_none(written):
    volume, node, _ = written
    writeSegment(np.zeros(SHAPE, bool), volume, node)
    maker = SurfaceMaker()
    maker.show(node, True)
    assert not maker.busy
