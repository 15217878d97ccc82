"""The liver segment on the real MRML: found by its code, dressed, and without harm to its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from geometries import linear, warp

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.scene.geometry import ijkToRas, toStack
from SAMMixLib.module.scene.segments import (
    COLORS,
    Brush,
    createSegmentation,
    findSegment,
    readSegment,
    writeSegment,
)
from SAMMixLib.structure import LIVER, SPLEEN, TUMOUR

SHAPE = (6, 8, 10)
LESION = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^49755003^Morphologically Abnormal Structure~SCT^4147007^Mass~^^"
    "~Anatomic codes - DICOM master list~SCT^10200004^Liver~^^"
)
TURN = np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, -7], [0, 0, 1, 11], [0, 0, 0, 1]])


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(1).random(SHAPE) < 0.3


@pytest.fixture
def other() -> np.ndarray:
    return np.random.default_rng(2).random(SHAPE) < 0.4


def add(node, volume, name: str, mask: np.ndarray, terminology: str = "") -> str:
    segmentId = node.GetSegmentation().AddEmptySegment(name, name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segmentId, volume)
    if terminology:
        node.GetSegmentation().GetSegment(segmentId).SetTerminology(terminology)
    return segmentId


def read(node, volume, segmentId: str) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, volume)


def labelmap(node):
    return node.GetSegmentation().GetSegment(findSegment(node)).GetRepresentation("Binary labelmap")


def test_a_new_liver_has_code_colour_and_reference_geometry(makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    assert findSegment(node) is None and not readSegment(node, volume).any()
    writeSegment(mask, volume, node)
    segment = node.GetSegmentation().GetSegment(findSegment(node))
    assert segment.GetTerminology() == LIVER.terminology
    assert np.allclose(segment.GetColor(), COLORS[LIVER.code])
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume


def test_the_liver_is_known_by_its_code_and_a_lesion_in_it_is_not(makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    lesion = add(node, volume, "Liver", mask, LESION)
    assert findSegment(node) is None
    liver = add(node, volume, "Leber", ~mask, LIVER.terminology)
    node.GetSegmentation().GetSegment(liver).SetColor(0, 0, 1)
    assert findSegment(node) == liver
    writeSegment(np.zeros(SHAPE), volume, node)
    segment = node.GetSegmentation().GetSegment(liver)
    assert node.GetSegmentation().GetSegmentIDs() == (lesion, liver)
    assert (segment.GetName(), segment.GetColor()) == ("Leber", (0, 0, 1))
    assert np.array_equal(read(node, volume, lesion), mask)
    assert not readSegment(node, volume).any()


def test_neighbours_in_a_shared_label_map_keep_every_voxel(makeVolume, mask, other):
    volume = makeVolume()
    node = createSegmentation(volume)
    spleen = add(node, volume, "spleen", other)
    kidney = add(node, volume, "kidney", ~other & mask)
    for written in (mask, ~mask, np.ones(SHAPE), np.zeros(SHAPE), mask):
        writeSegment(written, volume, node)
        assert np.array_equal(readSegment(node, volume), (written != 0) & ~other & ~(~other & mask))
        assert np.array_equal(read(node, volume, spleen), other)
        assert np.array_equal(read(node, volume, kidney), ~other & mask)


def test_structures_have_segments_of_their_own_and_a_tumour_lies_in_the_liver(makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume, SPLEEN)
    assert node.GetName().endswith(" spleen")
    for structure, written in ((LIVER, mask), (SPLEEN, ~mask), (TUMOUR, mask)):
        assert findSegment(node, structure) is None
        writeSegment(written, volume, node, brush=Brush(structure))
        segment = node.GetSegmentation().GetSegment(findSegment(node, structure))
        assert (segment.GetName(), segment.GetTerminology()) == (structure.name, structure.terminology)
        assert np.allclose(segment.GetColor(), COLORS.get(structure.code, structure.rgb))
    for structure, written in ((LIVER, mask), (SPLEEN, ~mask), (TUMOUR, mask)):
        assert np.array_equal(readSegment(node, volume, structure), written)
    writeSegment(np.ones(SHAPE), volume, node, brush=Brush(SPLEEN))
    assert np.array_equal(readSegment(node, volume, SPLEEN), ~mask), "an organ takes nothing from another"


def test_the_users_overlap_mode_and_masking_are_obeyed(scene, makeVolume, mask, other):
    volume = makeVolume()
    node = createSegmentation(volume)
    spleen = add(node, volume, "spleen", other)
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(editor.OverwriteNone)
    writeSegment(mask, volume, node, brush=Brush(editor=editor))
    assert np.array_equal(readSegment(node, volume), mask)
    assert np.array_equal(read(node, volume, spleen), other)

    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(spleen)
    writeSegment(~mask, volume, node, brush=Brush(editor=editor))
    assert np.array_equal(readSegment(node, volume), np.where(other, ~mask, mask))

    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(-200, 200)
    voxels = slicer.util.arrayFromVolume(volume)
    before = readSegment(node, volume)
    writeSegment(mask, volume, node, brush=Brush(editor=editor))
    assert np.array_equal(readSegment(node, volume), np.where((voxels >= -200) & (voxels <= 200), mask, before))
    assert np.array_equal(read(node, volume, spleen), other)


def test_masking_keeps_what_it_forbids_of_the_liver_itself(scene, makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    writeSegment(mask, volume, node, brush=Brush(editor=editor))
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(-200, 200)
    writeSegment(~mask, volume, node, brush=Brush(editor=editor))
    voxels = slicer.util.arrayFromVolume(volume)
    assert np.array_equal(readSegment(node, volume), np.where((voxels >= -200) & (voxels <= 200), ~mask, mask))


def test_the_closed_surface_is_there_again_and_up_to_date(makeVolume):
    volume = makeVolume((12, 14, 16))
    node = createSegmentation(volume)
    mask = np.zeros((12, 14, 16), bool)
    mask[3:6, 3:6, 3:6] = True
    writeSegment(mask, volume, node)
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")
    node.CreateClosedSurfaceRepresentation()
    mask[3:9] = mask[4]
    writeSegment(mask, volume, node, [6, 7, 8])
    surface = node.GetClosedSurfaceInternalRepresentation(findSegment(node))
    bounds = np.reshape(surface.GetBounds(), (3, 2))
    assert bounds[2, 1] > 8 * 2.5
    writeSegment(np.zeros_like(mask), volume, node)
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert node.GetClosedSurfaceInternalRepresentation(findSegment(node)).GetNumberOfPoints() == 0


def test_a_new_liver_has_a_surface_where_its_neighbours_have_one(makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    spleen = add(node, volume, "spleen", ~mask)
    node.CreateClosedSurfaceRepresentation()
    points = node.GetClosedSurfaceInternalRepresentation(spleen).GetNumberOfPoints()
    writeSegment(mask, volume, node)
    assert node.GetClosedSurfaceInternalRepresentation(findSegment(node)).GetNumberOfPoints() > 0
    assert node.GetClosedSurfaceInternalRepresentation(spleen).GetNumberOfPoints() == points > 0


def test_one_undo_takes_a_write_back(scene, makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    spleen = add(node, volume, "spleen", ~mask)
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetAndObserveSegmentationNode(node)
    editor.SetAndObserveSourceVolumeNode(volume)
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(scene)
    logic.SetSegmentEditorNode(editor)
    writeSegment(mask, volume, node)
    logic.SaveStateForUndo()
    writeSegment(np.zeros(SHAPE), volume, node, [0, 3])
    logic.SaveStateForUndo()
    writeSegment(np.zeros(SHAPE), volume, node)
    logic.Undo()
    expected = mask.copy()
    toStack(expected, volume)[[0, 3]] = False
    assert np.array_equal(readSegment(node, volume), expected)
    logic.Undo()
    assert np.array_equal(readSegment(node, volume), mask)
    assert np.array_equal(read(node, volume, spleen), ~mask)


@pytest.mark.parametrize("hardened", ["volume", "segmentation", "both"])
def test_a_linear_transform_may_be_hardened_afterwards(makeVolume, mask, hardened):
    volume = makeVolume(SHAPE, transform=linear(TURN))
    node = createSegmentation(volume)
    spleen = add(node, volume, "spleen", ~mask)
    writeSegment(mask, volume, node)
    if hardened != "segmentation":
        volume.HardenTransform()
    if hardened != "volume":
        node.HardenTransform()
    assert np.array_equal(readSegment(node, volume), mask)
    new = mask[::-1] & mask
    writeSegment(new, volume, node)
    assert np.array_equal(readSegment(node, volume), new)
    assert np.array_equal(read(node, volume, findSegment(node)), new)
    assert np.array_equal(read(node, volume, spleen), ~mask)


def test_a_volume_that_was_moved_alone_takes_its_liver_along_at_the_next_result(makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    writeSegment(mask, volume, node)
    volume.SetAndObserveTransformNodeID(linear(TURN).GetID())
    with pytest.raises(SAMMixError, match="another grid"):
        writeSegment(mask, volume, node, [1])
    assert node.GetParentTransformNode() is None
    writeSegment(mask, volume, node)
    assert node.GetParentTransformNode() is volume.GetParentTransformNode()
    assert np.array_equal(read(node, volume, findSegment(node)), mask)


def test_neighbours_are_never_moved_for_the_liver(makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    spleen = add(node, volume, "spleen", mask)
    volume.SetAndObserveTransformNodeID(linear(TURN).GetID())
    image = node.GetSegmentation().GetSegment(spleen).GetRepresentation("Binary labelmap")
    seen = image.GetMTime()
    with pytest.raises(SAMMixError, match="its segment spleen lies on another grid"):
        writeSegment(mask, volume, node)
    assert node.GetParentTransformNode() is None and image.GetMTime() == seen and findSegment(node) is None


def voxel(volume) -> float:
    """mm3."""
    return abs(np.linalg.det(ijkToRas(volume)[:3, :3]))


def test_under_a_warp_the_array_stays_exact_and_a_hardened_volume_is_resampled(makeVolume):
    shape = (10, 24, 24)
    volume = makeVolume(shape, np.diag([-3.0, -3.0, 5.0, 1.0]), transform=warp())
    node = createSegmentation(volume)
    mask = np.zeros(shape, bool)
    mask[3:7, 6:18, 6:18] = True
    writeSegment(mask, volume, node)
    assert np.array_equal(readSegment(node, volume), mask)
    spleen = add(node, volume, "spleen", ~mask)
    before = voxel(volume)
    volume.HardenTransform()
    found = readSegment(node, volume)
    assert found.shape == volume.GetImageData().GetDimensions()[::-1]
    assert found.sum() * voxel(volume) == pytest.approx(mask.sum() * before, rel=0.25)
    with pytest.raises(SAMMixError, match="non-linear transform lies between"):
        writeSegment(found, volume, node)
    node.GetSegmentation().RemoveSegment(spleen)
    writeSegment(found, volume, node)
    assert node.GetParentTransformNode() is None and np.array_equal(readSegment(node, volume), found)


def test_what_cannot_be_written_leaves_the_segmentation_as_it_was(scene, makeVolume, mask):
    volume = makeVolume()
    node = createSegmentation(volume)
    with pytest.raises(SAMMixError, match="not of the size"):
        writeSegment(mask[1:], volume, node)
    add(node, volume, "spleen", mask)
    elsewhere = makeVolume(SHAPE, np.diag([1.0, 1.0, 1.0, 1.0]), name="other CT")
    with pytest.raises(SAMMixError, match="another grid"):
        writeSegment(mask, elsewhere, node)
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(SAMMixError, match="surfaces"):
        writeSegment(mask, volume, node)
    assert findSegment(node) is None


def test_a_segment_from_a_larger_grid_of_the_same_lattice_is_read(makeVolume, mask):
    volume = makeVolume()
    larger = np.zeros((8, 10, 12), bool)
    larger[1:-1, 1:-1, 1:-1] = mask
    larger[0] = True
    matrix = np.diag([-0.7, -0.8, 2.5, 1.0])
    matrix[:3, 3] = [0.7, 0.8, -2.5]
    node = createSegmentation(outer := makeVolume(larger.shape, matrix))
    writeSegment(larger, outer, node)
    assert np.array_equal(readSegment(node, volume), mask)
    assert labelmap(node).GetExtent()[:5] == (0, 11, 0, 9, 0)
