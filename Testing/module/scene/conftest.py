"""A real MRML scene without the application, from the wheel ``slicer-core``; these tests skip where it is missing."""

from __future__ import annotations

import types

import numpy as np
import pytest

try:
    import slicer
    import vtk
except ModuleNotFoundError:
    slicer = None

SLICE_VIEWS = ("Red", "Yellow", "Green")


class WithoutSlicer(pytest.Module):
    def collect(self):
        pytest.skip("slicer-core is not installed (pip install slicer-core)", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return None if slicer else WithoutSlicer.from_parent(parent, path=module_path)


def _enterHierarchy(scene, event, node) -> None:
    """What the subject hierarchy's plugin logic, which is Qt, does in the application."""
    if node.IsA("vtkMRMLStorableNode") and not node.GetHideFromEditors() and not scene.IsImporting():
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


def _leaveHierarchy(scene, event, node) -> None:
    if not scene.IsClosing():
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        if item := hierarchy.GetItemByDataNode(node):
            hierarchy.RemoveItem(item, False, False)


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """One scene with the logics that Slicer's own modules bring, behind the names ``slicer.util`` looks for."""
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    home = tmp_path_factory.mktemp("home")
    colors = home / "share" / "ColorFiles"
    colors.mkdir(parents=True)  # the wheel brings none of Slicer's color files
    ramp = "".join(f"{n} {n} {n} {n // 2} {255 - n} 255\n" for n in range(256))
    for name in ("Inferno", "GenericColors"):
        (colors / f"{name}.txt").write_text(ramp)
    application.SetHomeDirectory(str(home))
    application.SetShareDirectory("share")
    application.SetTemporaryPath(str(tmp_path_factory.mktemp("temporary")))
    application.SetMRMLScene(scene)
    application.GetColorLogic().SetMRMLScene(scene)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    modules = {"volumes": slicer.vtkSlicerVolumesLogic(), "segmentations": slicer.vtkSlicerSegmentationsModuleLogic()}
    modules["colors"] = slicer.vtkSlicerColorLogic()
    application.SetModuleLogic("Colors", modules["colors"])
    for logic in modules.values():
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
    withNode = vtk.calldata_type(vtk.VTK_OBJECT)
    observers = [
        scene.AddObserver(scene.NodeAddedEvent, withNode(_enterHierarchy)),
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, withNode(_leaveHierarchy)),
    ]
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(str(tmp_path_factory.mktemp("cache")))
    scene.SetDataIOManager(slicer.vtkDataIOManager())
    scene.GetDataIOManager().SetCacheManager(cache)
    named = {name: types.SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in modules.items()}
    yield types.SimpleNamespace(
        scene=scene, application=application, colors=modules["colors"], modules=types.SimpleNamespace(**named)
    )
    for each in observers:
        scene.RemoveObserver(each)


@pytest.fixture
def scene(host, monkeypatch):
    """The scene, emptied but for colours and slice views; whatever VTK or MRML reports during the test fails it."""
    monkeypatch.setattr(slicer, "mrmlScene", host.scene, raising=False)
    monkeypatch.setattr(slicer, "modules", host.modules, raising=False)
    log = vtk.vtkStringOutputWindow()
    vtk.vtkOutputWindow.SetInstance(log)
    host.scene.Clear(True)
    host.colors.AddDefaultColorNodes()
    host.scene.AddNode(slicer.vtkMRMLCrosshairNode())
    addSliceViews(host.scene)
    yield host.scene
    reported = log.GetOutput()
    vtk.vtkOutputWindow.SetInstance(None)
    assert not reported, reported


def addSliceViews(scene) -> None:
    for name in SLICE_VIEWS:
        for kind in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
            node = scene.CreateNodeByClass(kind)
            node.SetLayoutName(name)
            node.SetName(name)
            node.SetSingletonTag(name)
            if kind == "vtkMRMLSliceNode":
                node.SetDimensions(256, 256, 1)
                node.SetOrientation({"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}[name])
            scene.AddNode(node)


@pytest.fixture
def makeVolume(scene):
    """A CT-like volume node from an array [z, y, x] (or a shape), a matrix index -> RAS and a parent transform."""

    def make(array=(6, 8, 10), matrix=None, transform=None, name="CT"):
        if isinstance(array, tuple):
            array = np.random.default_rng(0).integers(-1024, 400, array).astype(np.int16)
        matrix = np.diag([-0.7, -0.8, 2.5, 1.0]) if matrix is None else matrix
        node = slicer.util.addVolumeFromArray(array, matrix, name)
        if transform is not None:
            node.SetAndObserveTransformNodeID(transform.GetID())
        return node

    return make


@pytest.fixture
def linearTransform(scene):
    def make(matrix, name="T"):
        node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        return node

    return make
