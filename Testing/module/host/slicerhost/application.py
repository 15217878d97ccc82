"""``slicer.app``, ``slicer.mrmlScene`` and ``slicer.modules`` around slicer-core, so that its ``slicer.util`` works."""

from __future__ import annotations

import sys
import tempfile
import types
from pathlib import Path

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

MODULE_LOGICS = {
    "colors": "vtkSlicerColorLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "models": "vtkSlicerModelsLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "tables": "vtkSlicerTablesLogic",
}


COLORED = "host.colored"  # attribute of a node whose colour the hierarchy's tree has shown


class ModuleManager(QtCore.QObject):
    moduleAboutToBeUnloaded = QtCore.Signal(str)


class IOManager:
    """Reads and writes nodes through the same MRML storage nodes that the application's readers and writers call."""

    def fileType(self, path) -> str:
        name = str(path).lower()
        kinds = {".seg.nrrd": "SegmentationFile", ".mrk.json": "MarkupsFile", ".mrml": "SceneFile", ".mrb": "SceneFile"}
        return next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), "VolumeFile")

    def loadNodes(self, kind, properties, loaded=None, messages=None) -> bool:
        path = properties["fileName"]
        name = properties.get("name") or Path(path).name.split(".")[0]
        if kind == "SceneFile":
            slicer.mrmlScene.SetURL(path)
            return bool(slicer.mrmlScene.Connect(None))
        if kind == "SegmentationFile":
            node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(path, True, name, None)
        else:
            node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, 0)
        if node is not None and loaded is not None:
            loaded.AddItem(node)
        if kind == "VolumeFile" and node is not None and properties.get("show", True):
            slicer.app.processEvents()  # a reader's progress is drawn before its volume is
            _show_volume(node)
        return node is not None

    def saveNodes(self, kind, properties, messages=None) -> bool:
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if not node.GetStorageNode():
            node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(properties["fileName"])
        return bool(node.GetStorageNode().WriteData(node))

    def fileWriterFileType(self, node) -> str:
        return type(node).__name__


def _show_volume(node) -> None:
    """What the application's volume reader does: the new volume goes into all slice views, which are fitted."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(node.GetID())
    slicer.app.layoutManager().resetSliceViews()


def _color_files(folder: Path) -> None:
    """The colour tables of heat maps and labels: slicer-core carries none of the application's files."""
    from matplotlib import colormaps

    (folder / "share" / "ColorFiles").mkdir(parents=True, exist_ok=True)
    lines = [f"{n} {n} " + " ".join(str(round(255 * c)) for c in colormaps["inferno"](n)) for n in range(256)]
    for name in ("Inferno", "GenericColors"):
        (folder / "share" / "ColorFiles" / f"{name}.txt").write_text("\n".join(lines))


def _watch_colors(hierarchy, event) -> None:
    """What the hierarchy's tree does whenever a display changes: it reads the colours of markups, and writes back those
    that it finds changed. One whose display is gone has changed to no colour, which cannot be written.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode"):
        if node.GetDisplayNode():
            node.SetAttribute(COLORED, "true")
        elif node.GetAttribute(COLORED) and hierarchy.GetItemByDataNode(node):
            QtCore.qCritical("setColorAndTerminologyToDisplayableNode: No display node")


@vtk.calldata_type(vtk.VTK_OBJECT)
def _enter_hierarchy(scene, event, node) -> None:
    """What the application's subject hierarchy does by itself; none of its plugins owns cameras."""
    if node.IsA("vtkMRMLSubjectHierarchyNode"):
        for watched in (node.SubjectHierarchyItemDisplayModifiedEvent, node.SubjectHierarchyItemModifiedEvent):
            node.AddObserver(watched, _watch_colors)
    if node.IsA("vtkMRMLCameraNode"):
        return
    if node.IsA("vtkMRMLStorableNode") and not node.GetHideFromEditors() and not scene.IsImporting():
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _leave_hierarchy(scene, event, node) -> None:
    if scene.IsClosing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy and (item := hierarchy.GetItemByDataNode(node)):
        hierarchy.RemoveItem(item, False, False)


class Application:
    """What modules ask of ``slicer.app``; the scene and the logics behind it are Slicer's own."""

    applicationName = "Slicer"

    def __init__(self, folder: Path):
        self.folder = folder
        self.qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
        self.scene = slicer.vtkMRMLScene()
        self.temporaryPath = tempfile.gettempdir()
        self._settings = QtCore.QSettings(str(folder / "settings.ini"), QtCore.QSettings.IniFormat)
        self._manager = ModuleManager()
        self._io = IOManager()
        self._logic = self._application_logic()
        self.modules = types.SimpleNamespace()
        for name, cls in MODULE_LOGICS.items():
            self._add_module_logic(name, getattr(slicer, cls)())
        self._layout = None

    def _application_logic(self):
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        logic = slicer.vtkSlicerApplicationLogic()
        _color_files(self.folder)
        logic.SetHomeDirectory(str(self.folder))
        logic.SetShareDirectory("share")
        logic.SetMRMLScene(self.scene)
        logic.GetColorLogic().SetMRMLScene(self.scene)
        logic.GetColorLogic().AddDefaultColorNodes()
        logic.SetTemporaryPath(self.temporaryPath)
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        for factory in (slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
                        slicer.vtkMRMLSliceViewDisplayableManagerFactory):  # fmt: skip
            factory.GetInstance().SetMRMLApplicationLogic(logic)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self.scene.AddObserver(self.scene.NodeAddedEvent, _enter_hierarchy)
        self.scene.AddObserver(self.scene.NodeAboutToBeRemovedEvent, _leave_hierarchy)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        for cls in ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode"):
            if self.scene.GetFirstNodeByClass(cls) is None:
                self.scene.AddNewNodeByClass(cls)
        return logic

    def _add_module_logic(self, name: str, logic) -> None:
        if hasattr(logic, "SetMRMLApplicationLogic"):
            logic.SetMRMLApplicationLogic(self._logic)
        title = type(logic).__name__.removeprefix("vtkSlicer").removesuffix("Logic")
        self._logic.SetModuleLogic({"Color": "Colors"}.get(title, title.removesuffix("Module")), logic)
        logic.SetMRMLScene(self.scene)
        setattr(self.modules, name, types.SimpleNamespace(name=name, logic=lambda: logic))

    def layoutManager(self):
        from slicerhost.views import LayoutManager

        if self._layout is None:
            self._layout = LayoutManager(self._logic, self.scene)
        return self._layout

    def applicationLogic(self):
        return self._logic

    def coreIOManager(self):
        return self._io

    ioManager = coreIOManager

    def moduleManager(self):
        return self._manager

    def userSettings(self):
        return self._settings

    settings = userSettings

    def connect(self, signal: str, slot) -> bool:
        return True

    def translate(self, context: str, text: str) -> str:
        return text

    def processEvents(self, *_) -> None:
        self.qt.processEvents()

    def testingEnabled(self) -> bool:
        return False

    def topLevelWidgets(self):
        return self.qt.topLevelWidgets()

    def commandOptions(self):
        return types.SimpleNamespace(noMainWindow=True, testingEnabled=False)

    def setOverrideCursor(self, cursor) -> None:
        self.qt.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        self.qt.restoreOverrideCursor()

    def pauseRender(self) -> None:
        pass

    resumeRender = pauseRender
