"""A scene that was saved, closed and read again: the liver as it was, no helper nodes, nothing in the error log."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from geometries import export, linear

from SAMMixLib.module.scene.boxes import boxNode, showBox
from SAMMixLib.module.scene.chart import showChart
from SAMMixLib.module.scene.edits import editedSlices, rememberResult
from SAMMixLib.module.scene.geometry import toStack
from SAMMixLib.module.scene.hygiene import FOLDER, folder, helpers
from SAMMixLib.module.scene.overlay import loadCam, showCam
from SAMMixLib.module.scene.segments import COLORS, createSegmentation, findSegment, readSegment, writeSegment
from SAMMixLib.structure import LIVER

SHAPE = (6, 8, 10)
OBLIQUE = np.array([[-0.56, 0.48, 0, 30], [-0.42, -0.64, 0, -80], [0, 0, 2.5, 600], [0, 0, 0, 1]])
HELPERS = (
    "vtkMRMLMarkupsNode",
    "vtkMRMLMarkupsDisplayNode",
    "vtkMRMLColorLegendDisplayNode",
    "vtkMRMLTableNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLPlotChartNode",
)
TURN = np.array([[1, 0, 0, 5], [0, 0.8, -0.6, -7], [0, 0.6, 0.8, 11], [0, 0, 0, 1]])


def draw(volume, tmp_path):
    """Everything that SAMMix draws for a volume."""
    export(volume, tmp_path / "ct.nrrd")
    ct = sitk.ReadImage(str(tmp_path / "ct.nrrd"))
    sitk.WriteImage(sitk.Cast(ct > 0, sitk.sitkUInt8) * 200, str(tmp_path / "cam.nrrd"))
    mask = np.random.default_rng(len(volume.GetName())).random(SHAPE) < 0.3
    node = createSegmentation(volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        (~mask).astype(np.uint8), node, node.GetSegmentation().AddEmptySegment("spleen", "spleen"), volume
    )
    writeSegment(mask, volume, node)
    rememberResult(node, volume)
    showBox(boxNode(volume), volume, 2, (1, 2, 3, 4))
    showChart(volume, np.linspace(0, 1, SHAPE[0]), np.linspace(0, 900, SHAPE[0]), [2])
    showCam(loadCam(tmp_path / "cam.nrrd", volume), 0.4)
    return node, mask


def save(scene, path) -> None:
    if path.suffix == ".mrb":
        assert scene.WriteToMRB(str(path))
    else:
        scene.SetURL(str(path))
        scene.SetRootDirectory(str(path.parent))
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            if node.GetSaveWithScene() and node.IsA("vtkMRMLTransformableNode") and not node.IsA("vtkMRMLSliceNode"):
                node.AddDefaultStorageNode()
                suffix = node.GetStorageNode().GetDefaultWriteFileExtension()
                node.GetStorageNode().SetFileName(str(path.parent / f"{node.GetID()}.{suffix}"))
                assert node.GetStorageNode().WriteData(node)
        assert scene.Commit(str(path))


def load(scene, path) -> None:
    scene.Clear(False)
    if path.suffix == ".mrb":
        assert scene.ReadFromMRB(str(path), True)
    else:
        scene.SetURL(str(path))
        assert scene.Connect()


@pytest.fixture(params=[".mrb", ".mrml"])
def reload(scene, tmp_path, request):
    """Save the scene, close it, and read it again."""

    def go() -> None:
        path = Path(tempfile.mkdtemp(dir=tmp_path)) / f"scene{request.param}"
        save(scene, path)
        load(scene, path)

    return go


def test_livers_of_two_volumes_come_back_and_helpers_do_not(scene, makeVolume, tmp_path, reload):
    volumes = [makeVolume(SHAPE, OBLIQUE, name="CT"), makeVolume(SHAPE, transform=linear(TURN), name="second CT")]
    drawn = [draw(volume, tmp_path) for volume in volumes]
    names = [(volume.GetName(), node.GetName(), mask) for volume, (node, mask) in zip(volumes, drawn, strict=True)]
    reload()

    assert helpers() == []
    for kind in HELPERS:
        assert scene.GetNumberOfNodesByClass(kind) == 0, kind
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeDisplayNode") == 2
    for volumeName, nodeName, mask in names:
        volume, node = scene.GetFirstNodeByName(volumeName), scene.GetFirstNodeByName(nodeName)
        spleen, liver = node.GetSegmentation().GetSegmentIDs()
        assert liver == findSegment(node)
        segment = node.GetSegmentation().GetSegment(liver)
        assert segment.GetTerminology() == LIVER.terminology
        assert np.allclose(segment.GetColor(), COLORS[LIVER.code], atol=1e-3)
        assert np.array_equal(readSegment(node, volume), mask)
        assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, spleen, volume), ~mask)
        assert node.GetParentTransformNode() is volume.GetParentTransformNode()
        assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        assert not view.GetForegroundVolumeID()


def test_edits_are_known_after_reloading(scene, makeVolume, tmp_path, reload):
    volume = makeVolume(SHAPE, OBLIQUE)
    node, mask = draw(volume, tmp_path)
    toStack(mask, volume)[3] = False
    writeSegment(mask, volume, node, [3])
    reload()
    volume = scene.GetFirstNodeByName("CT")
    assert editedSlices(scene.GetFirstNodeByName("CT liver"), volume) == [3]


def test_all_can_be_drawn_again_after_reloading(scene, makeVolume, tmp_path, reload):
    draw(makeVolume(SHAPE, OBLIQUE), tmp_path)
    reload()
    volume = scene.GetFirstNodeByName("CT")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    found = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), FOLDER)
    node, mask = draw(volume, tmp_path)
    assert folder(volume) == found
    assert np.array_equal(readSegment(node, volume), mask)
    reload()
    assert helpers() == []
