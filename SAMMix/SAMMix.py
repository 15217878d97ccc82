"""The SAMMix module: what Slicer asks of a scripted module. The panel's tabs are in ``SAMMixLib.module.widgets``."""

import os
import shutil
import sys
from types import SimpleNamespace
from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class SAMMix(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SAMMix")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Markups", "Plots"]
        parent.contributors = ["SAMMix developers"]
        parent.helpText = _("Segments the liver in CT without clicks (SAM-Mix). For research only, not for diagnosis.")
        parent.acknowledgementText = _(
            "The method is by Ward and Imran, Annotation-Efficient Task Guidance for Medical Segment Anything (2025)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer a public CT and the project's own phantom in the Sample Data module."""
    addLibraryToPath()
    from SAMMixLib.module.scene.sample_data import register

    register()


def addLibraryToPath():
    """In the source tree only this file's folder is on the path, and ``SAMMixLib`` lies beside it."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.isdir(os.path.join(folder, "SAMMixLib")) and folder not in sys.path:
        sys.path.append(folder)


@parameterNodeWrapper
class SAMMixParameters:
    """Kept in the scene: what is segmented, and what is drawn over it."""

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    heatMap: bool = True
    legend: bool = True
    box: bool = True
    show3D: bool = True
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.25
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.3


class SAMMixWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.parameters = self.parametersTag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SAMMixLogic()
        from SAMMixLib.module.widgets.correct_tab import CorrectTab
        from SAMMixLib.module.widgets.desk import Desk
        from SAMMixLib.module.widgets.heights import TabHeights
        from SAMMixLib.module.widgets.models_tab import ModelsTab
        from SAMMixLib.module.widgets.segment_tab import SegmentTab
        from SAMMixLib.module.widgets.train_tab import TrainTab

        panel = slicer.util.loadUI(self.resourcePath("UI/SAMMix.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        session = self.logic.newSession(self)
        collector, training = self.logic.newTraining(self, session.settings)
        self.desk = Desk(self.ui.segmentEditor, session, self.choose)
        self.segmentTab = SegmentTab(self.ui, self.desk, self.install)
        self.correctTab = CorrectTab(self.ui, self.desk)
        self.trainTab = TrainTab(self.ui, self.desk, collector, training, self.installForTraining)
        self.modelsTab = ModelsTab(self.ui, self.desk, self.install)
        self.tabHeights = TabHeights(self.ui.tabs, self.parent)
        self.desk.listen(self.tabHeights.fit)  # the last, when the tabs have written their texts
        self.setParameters(self.logic.getParameterNode())  # the editor's node comes before its scene
        panel.setMRMLScene(slicer.mrmlScene)
        self.ui.segmentEditor.setMRMLScene(slicer.mrmlScene)
        self.initializeParameters()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneChanged)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)

    def enter(self):
        self.initializeParameters()
        self.modelsTab.refresh()
        self.trainTab.enter()
        self.desk.enter(warmUp=not self.logic.missing())

    def exit(self):
        self.correctTab.close()
        self.desk.exit()
        self.disconnectParameters()

    def cleanup(self):
        from SAMMixLib.module.scene.hygiene import removeHelpers

        self.correctTab.close()
        self.desk.exit()
        self.desk.close()
        self.trainTab.close()
        self.disconnectParameters()
        self.removeObservers()
        removeHelpers()

    def onSceneStartClose(self, caller=None, event=None):
        self.desk.session.forget()
        self.disconnectParameters()
        self.desk.setParameters(None)

    def onSceneChanged(self, caller=None, event=None):
        if self.parent.isEntered:
            self.initializeParameters()
            self.ui.segmentEditor.updateWidgetFromMRML()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, scene, event, node):
        if node.IsA("vtkMRMLScalarVolumeNode") and self.parent.isEntered and not scene.IsImporting():
            self.desk.volumeAdded(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, scene, event, node):
        from SAMMixLib.module.scene.hygiene import removeHelpers

        if node.IsA("vtkMRMLScalarVolumeNode") and not scene.IsClosing():
            self.desk.volumeRemoved(node)
            removeHelpers(node)

    def initializeParameters(self):
        from SAMMixLib.module.scene.singletons import firstVolume

        self.setParameters(self.logic.getParameterNode())
        if not self.parameters.inputVolume:
            self.parameters.inputVolume = firstVolume()

    def setParameters(self, parameters):
        self.disconnectParameters()
        self.parameters = parameters
        self.parametersTag = parameters.connectGui(self.ui)
        self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.desk.setParameters(parameters)

    def disconnectParameters(self):
        if self.parameters:
            self.parameters.disconnectGui(self.parametersTag)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.parameters = None

    def onParameters(self, caller=None, event=None):
        self.desk.onParameters()

    def ask(self, question):
        return slicer.util.confirmYesNoDisplay(question, _("SAMMix"))

    def choose(self, question):
        """Put a ``texts.Question`` to the user; closing the window is its last choice.

        Enter loses nothing: of three choices the first keeps what is there, of two the last calls it off.
        """
        box = qt.QMessageBox(slicer.util.mainWindow())
        box.windowTitle, box.text = _("SAMMix"), question.text
        buttons = [box.addButton(choice, qt.QMessageBox.ActionRole) for choice in question.choices]
        box.setDefaultButton(buttons[0] if len(buttons) > 2 else buttons[-1])
        box.setEscapeButton(buttons[-1])
        box.exec_()
        return next((each for each, button in zip(question.choices, buttons, strict=True)
                     if box.clickedButton() == button), question.choices[-1])  # fmt: skip

    def install(self):
        """Whether the worker has what it needs; asks before anything is downloaded."""
        return self._install(self.logic.requirements)

    def installForTraining(self):
        """As :meth:`install`, for what training needs beyond that."""
        return self._install(self.logic.trainingRequirements)

    def _install(self, requirements):
        try:
            self.logic.install(slicer.util.confirmOkCancelDisplay, requirements)
        except RuntimeError as error:
            slicer.util.errorDisplay(str(error), _("SAMMix"))
        return not self.logic.missing(requirements)


class SAMMixLogic(ScriptedLoadableModuleLogic):
    """The module without its panel, for scripts: see :meth:`process`."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        addLibraryToPath()
        resources = os.path.join(os.path.dirname(__file__), "Resources")
        self.requirements = os.path.join(resources, "requirements.txt")
        self.trainingRequirements = os.path.join(resources, "requirements-training.txt")
        self.session = None

    def getParameterNode(self):
        return SAMMixParameters(super().getParameterNode())

    def missing(self, requirements=None):
        """Python packages that the worker needs and Slicer does not have yet; to segment, by default."""
        from SAMMixLib.module.install import missing

        return missing(requirements or self.requirements)

    def install(self, ask, requirements=None):
        """Install what is missing, if ``ask(question)`` says yes; to segment, by default.

        Raises:
            RuntimeError: it cannot be installed; the message says why.
        """
        from SAMMixLib.errors import Cancelled, SAMMixError
        from SAMMixLib.module.install import ensure

        try:
            ensure(requirements or self.requirements, ask)
        except SAMMixError as error:
            raise RuntimeError(str(error)) from None
        except Cancelled:
            pass

    def newSession(self, user):
        """A session with its own worker process, which starts when it is first needed; it asks ``user``."""
        from SAMMixLib.module.session.session import Session
        from SAMMixLib.module.session.settings import Settings

        return Session(self.newWorker, user, Settings(slicer.app.userSettings()))

    def newTraining(self, user, settings):
        """What collects slices, and what trains on them in a worker process of its own."""
        from SAMMixLib.module.session.collecting import Collector
        from SAMMixLib.module.session.training import Training

        return Collector(settings), Training(self.newWorker, user, settings)

    def newWorker(self):
        from SAMMixLib.worker.client import WorkerClient

        return WorkerClient([shutil.which("PythonSlicer") or sys.executable, "-m", "SAMMixLib.worker"])

    def process(self, volume, segmentation=None, model=None, device=None):
        """Segment the liver of a volume node and wait for it; the windows stay alive.

        Args:
            segmentation: takes the liver segment; a new node by default, and where it holds segments of another scan.
            model, device: as in the module's panel; those chosen there by default.

        Returns:
            The segmentation node. The worker stays for the next volume, until :meth:`close`.

        Raises:
            RuntimeError: packages are missing, or it failed; the message says why.
        """
        from SAMMixLib.module.scene.case import Case

        if missing := self.missing():
            raise RuntimeError(f"missing: {', '.join(missing)}; press Segment Liver in the module once to install them")
        if self.session is None:
            self.session = self.newSession(SimpleNamespace(ask=lambda question: True, choose=lambda q: q.choices[0]))
        if model:
            self.session.settings.model = model
        if device:
            self.session.settings.device = device
        case = Case(volume, segmentation)
        self.session.segment(case)
        while self.session.busy:
            self.session.tick()
            slicer.app.processEvents()
        if self.session.error:
            raise RuntimeError(self.session.error)
        return case.segmentationNode

    def close(self):
        """End the worker process and give back its memory."""
        if self.session is not None:
            self.session.unload()
