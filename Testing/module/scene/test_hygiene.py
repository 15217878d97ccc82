"""Helper nodes: in the volume's study, out of the way, and gone when they are told to."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

from SAMMixLib.module.scene.boxes import boxNode
from SAMMixLib.module.scene.chart import showChart
from SAMMixLib.module.scene.hygiene import FOLDER, folder, helpers, isHelper, removeHelpers
from SAMMixLib.module.scene.overlay import loadCam
from SAMMixLib.module.scene.segments import createSegmentation


def hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def test_helpers_lie_in_a_folder_of_the_volumes_study_hidden_and_unsaved(makeVolume):
    volume = makeVolume()
    tree = hierarchy()
    study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "patient"), "CT of May")
    tree.SetItemParent(tree.GetItemByDataNode(volume), study)
    roi = boxNode(volume)
    chart = showChart(volume, np.zeros(6), np.zeros(6))
    segmentation = createSegmentation(volume)
    assert tree.GetItemParent(folder(volume)) == study and tree.GetItemName(folder(volume)) == FOLDER
    for node in (roi, chart, segmentation):
        assert tree.GetItemParent(tree.GetItemByDataNode(node)) == folder(volume)
    assert len(helpers(volume)) == 6 and not isHelper(segmentation) and not isHelper(volume)
    for node in (*helpers(volume), roi.GetDisplayNode()):
        assert node.GetHideFromEditors() and not node.GetSaveWithScene()
    assert segmentation.GetSaveWithScene() and not segmentation.GetHideFromEditors()


def test_a_helper_is_hidden_before_it_comes_into_the_scene(scene, makeVolume, tmp_path):
    """Slicer's selectors look at a node when it comes; hidden later, it stays among the volumes to choose from."""
    volume, seen = makeVolume(), []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(caller, event, node):
        seen.append((node, node.GetHideFromEditors()))

    tag = scene.AddObserver(scene.NodeAddedEvent, added)
    boxNode(volume)
    showChart(volume, np.zeros(6), np.zeros(6))
    sitk.WriteImage(sitk.Image(4, 4, 6, sitk.sitkUInt8), str(tmp_path / "cam.nrrd"))
    loadCam(tmp_path / "cam.nrrd", volume)
    scene.RemoveObserver(tag)
    came = [hidden for node, hidden in seen if isHelper(node)]
    assert len(came) == 7 and all(came)


def test_the_helpers_of_one_volume_go_and_those_of_another_stay(scene, makeVolume):
    one, two = makeVolume(), makeVolume(name="second")
    nodes = scene.GetNumberOfNodes()
    boxNode(one)
    showChart(one, np.zeros(6), np.zeros(6))
    kept = boxNode(two)
    removeHelpers(one)
    assert helpers() == [kept]
    assert hierarchy().GetItemByDataNode(kept)
    removeHelpers(two)
    assert not hierarchy().GetItemChildWithName(hierarchy().GetSceneItemID(), FOLDER)
    assert scene.GetNumberOfNodes() == nodes


def test_helpers_of_a_volume_that_is_gone_go_with_all(scene, makeVolume):
    boxNode(volume := makeVolume())
    scene.RemoveNode(volume)
    removeHelpers()
    assert helpers() == [] and scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROIDisplayNode") == 0


def test_a_helper_that_the_hierarchy_lists_has_its_display(scene, makeVolume, tmp_path):
    """The hierarchy reads the colour of what it lists at each change of a display."""
    volume = makeVolume()
    boxNode(volume)
    sitk.WriteImage(sitk.Image(4, 4, 6, sitk.sitkUInt8), str(tmp_path / "cam.nrrd"))
    loadCam(tmp_path / "cam.nrrd", volume)
    bare = []

    def look(*_):
        listed = [node for node in helpers() if hierarchy().GetItemByDataNode(node)]
        shown = [node for node in listed if node.IsA("vtkMRMLDisplayableNode")]
        bare.extend(node.GetName() for node in shown if not node.GetDisplayNode())

    scene.AddObserver(scene.NodeRemovedEvent, look)
    removeHelpers(volume)
    assert not bare and not helpers()
    kinds = ("vtkMRMLMarkupsROIDisplayNode", "vtkMRMLColorLegendDisplayNode")
    assert not any(scene.GetNumberOfNodesByClass(kind) for kind in kinds)


def test_a_folder_with_a_segmentation_in_it_stays(makeVolume):
    volume = makeVolume()
    boxNode(volume)
    node = createSegmentation(volume)
    removeHelpers(volume)
    assert hierarchy().GetItemParent(hierarchy().GetItemByDataNode(node)) == folder(volume)


def test_no_node_is_removed_twice(scene, makeVolume):
    """The application takes a display along with its node, and logs errors of a node that is told to go after that."""
    went = []
    boxNode(volume := makeVolume())
    displays = {node: node.GetDisplayNode() for node in helpers(volume) if hasattr(node, "GetDisplayNode")}

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def leaving(caller, event, node):
        went.append(node.GetScene())

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def left(caller, event, node):
        if (display := displays.get(node)) is not None:
            scene.RemoveNode(display)

    tags = [
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, leaving),
        scene.AddObserver(scene.NodeRemovedEvent, left),
    ]
    removeHelpers(volume)
    for tag in tags:
        scene.RemoveObserver(tag)
    assert len(went) >= 2 and all(each is scene for each in went)
