"""Which volume nodes are taken, which are refused in one line, and what the user is warned of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from geometries import export, linear

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.scene.geometry import axialGrid
from SAMMixLib.module.scene.hygiene import adopt
from SAMMixLib.module.scene.volume import checkVolume, importMask

CORONAL = np.array([[-1, 0, 0, 0], [0, 0, 1.5, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
SAGITTAL = np.array([[0, 0, 1.5, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])


def test_a_ct_is_taken_without_a_word(makeVolume):
    assert checkVolume(makeVolume()) == (True, "", [])


def refusals(scene, makeVolume):
    yield None, "Choose a CT"
    yield scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"), "holds no voxels"
    color = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    yield color, "values a voxel"
    labels = slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    yield labels, "is a label map"
    sheared = np.eye(4)
    sheared[0, 2] = 0.3
    yield makeVolume(matrix=sheared), "sheared by 16.7 degrees"
    yield makeVolume((np.arange(480) % 2).reshape(6, 8, 10).astype(np.int16)), "a mask or a scaled image"
    yield makeVolume(np.full((6, 8, 10), np.nan, np.float32)), "not HU"
    heat = makeVolume(name="CAM")
    adopt(heat, makeVolume(), "cam")
    yield heat, "drawn by SAMMix itself"


def test_what_is_no_ct_is_refused_in_one_line(scene, makeVolume):
    for node, reason in refusals(scene, makeVolume):
        ok, said, warnings = checkVolume(node)
        assert not ok and reason in said and "\n" not in said and warnings == [], (reason, said)


@pytest.mark.parametrize(("matrix", "axis"), [(CORONAL, "J"), (SAGITTAL, "J"), (CORONAL[:, [1, 0, 2, 3]], "I")])
def test_the_axis_nearest_to_superior_counts_as_slices_and_the_user_is_told(makeVolume, matrix, axis):
    volume = makeVolume(matrix=matrix)
    ok, _, (warning,) = checkVolume(volume)
    assert ok and f"not an axial stack; its {axis} axis" in warning
    assert axialGrid(volume).axes[0] == "IJ".index(axis)


def test_tilt_modality_and_missing_air_are_warned_of(makeVolume):
    sine, cosine = math.sin(math.radians(20)), math.cos(math.radians(20))
    tilted = np.array([[-1, 0, 0, 0], [0, -cosine, -sine, 0], [0, -sine, cosine, 0], [0, 0, 0, 1]])
    assert "tilted by 20 degrees" in checkVolume(makeVolume(matrix=tilted))[2][0]
    bright = np.random.default_rng(0).integers(0, 1500, (6, 8, 10)).astype(np.int16)
    mr = makeVolume(bright)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(mr), "DICOM.Modality", "MR")
    ok, _, warnings = checkVolume(mr)
    assert ok and "modality is MR" in warnings[0] and "no air" in warnings[1]


def test_the_file_holds_the_nodes_own_grid_whatever_its_parent(makeVolume, tmp_path):
    moved = np.eye(4)
    moved[:3, 3] = 40
    volume = makeVolume(transform=linear(moved))
    path = export(volume, tmp_path / "ct.nrrd")
    image = sitk.ReadImage(str(path))
    assert image.GetOrigin() == (0, 0, 0) and np.allclose(image.GetSpacing(), (0.7, 0.8, 2.5))
    assert np.array_equal(sitk.GetArrayFromImage(image), slicer.util.arrayFromVolume(volume))
    assert b"encoding: raw" in path.read_bytes()[:1000]
    assert [each.name for each in tmp_path.iterdir()] == ["ct.nrrd"]


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(makeVolume, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        export(makeVolume(), tmp_path / "no such folder" / "ct.nrrd")


def test_a_mask_of_another_grid_is_not_taken(makeVolume, tmp_path):
    export(volume := makeVolume(), tmp_path / "mask.nrrd")
    image = sitk.Cast(sitk.ReadImage(str(tmp_path / "mask.nrrd")) > 0, sitk.sitkUInt8)
    sitk.WriteImage(image, str(tmp_path / "mask.nrrd"))
    assert importMask(tmp_path / "mask.nrrd", volume).shape == (6, 8, 10)
    for other in (makeVolume((6, 8, 11)), makeVolume(matrix=np.diag([-0.7, 0.8, 2.5, 1.0]))):
        with pytest.raises(SAMMixError, match="grid has changed"):
            importMask(tmp_path / "mask.nrrd", other)
    (tmp_path / "mask.nrrd").write_bytes((tmp_path / "mask.nrrd").read_bytes()[:-1])
    with pytest.raises(SAMMixError, match=r"mask.nrrd: is no whole mask"):
        importMask(tmp_path / "mask.nrrd", volume)
