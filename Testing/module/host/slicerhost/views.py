"""Slice and 3D views with Slicer's own displayable managers, drawn off screen into numpy pictures.

A view's render window is made when the first picture is asked for; until then only its node and logic exist, so that
tests without pictures need no OpenGL.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkInteractionStyle import vtkInteractorStyleUser

SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager", "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager", "vtkMRMLRulerDisplayableManager",
)  # fmt: skip
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager", "vtkMRMLViewDisplayableManager", "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D", "vtkMRMLMarkupsDisplayableManager",
)  # fmt: skip


class RenderedView:
    def __init__(self, factory, managers, node, size: tuple[int, int]):
        self.renderer, self.window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.ShowWindowOff()
        self.window.SetMultiSamples(0)
        self.window.AddRenderer(self.renderer)
        self.window.SetSize(*size)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.SetInteractorStyle(vtkInteractorStyleUser())
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.group.Initialize(factory, self.renderer)

    def picture(self) -> np.ndarray:
        """uint8 [rows, columns, 3]."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()


class SliceView:
    """One slice view; also what ``sliceWidget``, ``sliceController`` and ``sliceView`` give in the application."""

    def __init__(self, application_logic, scene, name: str, orientation: str, size: tuple[int, int]):
        self.size = size
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        application_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(orientation)
        self.logic.ResizeSliceNode(*size)

    def sliceLogic(self):
        return self.logic

    def mrmlSliceNode(self):
        return self.node

    def mrmlSliceCompositeNode(self):
        return self.logic.GetSliceCompositeNode()

    def sliceController(self):
        return self

    sliceView = sliceController

    def fitSliceToBackground(self) -> None:
        self.logic.FitSliceToAll()
        self.logic.SnapSliceOffsetToIJK()

    @cached_property
    def rendered(self) -> RenderedView:
        view = RenderedView(slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), SLICE_MANAGERS,
                            self.node, self.size)  # fmt: skip
        view.renderer.GetActiveCamera().ParallelProjectionOn()
        overlay = vtk.vtkRenderer()
        overlay.SetLayer(1)
        view.window.SetNumberOfLayers(2)
        view.window.AddRenderer(overlay)
        view.style = slicer.vtkMRMLSliceViewInteractorStyle()
        view.style.SetSliceLogic(self.logic)
        view.style.SetDisplayableManagers(view.group)
        view.group.SetMRMLDisplayableNode(self.node)
        view.style.SetInteractor(view.interactor)
        view.mapper = vtk.vtkImageMapper()
        view.mapper.SetColorWindow(255)
        view.mapper.SetColorLevel(127.5)
        view.actor = vtk.vtkActor2D()
        view.actor.SetMapper(view.mapper)
        view.actor.GetProperty().SetDisplayLocationToBackground()
        view.renderer.AddViewProp(view.actor)
        return view

    def picture(self) -> np.ndarray:
        pixels = self.logic.GetImageDataConnection()
        self.rendered.mapper.SetInputConnection(pixels)
        self.rendered.actor.SetVisibility(bool(pixels))
        return self.rendered.picture()


class ThreeDView:
    def __init__(self, application_logic, scene, size: tuple[int, int]):
        self.size = size
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        application_logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(scene)
        self.node = self.logic.AddViewNode("1")

    @cached_property
    def rendered(self) -> RenderedView:
        view = RenderedView(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), THREE_D_MANAGERS,
                            self.node, self.size)  # fmt: skip
        view.group.SetMRMLDisplayableNode(self.node)
        view.style = slicer.vtkMRMLThreeDViewInteractorStyle()
        view.style.SetDisplayableManagers(view.group)
        view.style.SetInteractor(view.interactor)
        return view

    def picture(self) -> np.ndarray:
        return self.rendered.picture()

    # What the application's ``qMRMLThreeDView`` does, as its sources have it

    def threeDView(self):
        return self

    def mrmlViewNode(self):
        return self.node

    def cameraNode(self):
        manager = "vtkMRMLCameraDisplayableManager"
        return self.rendered.group.GetDisplayableManagerByClassName(manager).GetCameraNode()

    def resetFocalPoint(self) -> None:
        self.rendered.window.Render()
        shown = self.node.GetBoxVisible(), self.node.GetAxisLabelsVisible()
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        bounds = [0.0] * 6
        self.rendered.renderer.ComputeVisiblePropBounds(bounds)
        self.cameraNode().SetFocalPoint(*(np.array(bounds[::2]) + bounds[1::2]) / 2)
        self.node.SetBoxVisible(shown[0])
        self.node.SetAxisLabelsVisible(shown[1])

    def rotateToViewAxis(self, axis: int) -> None:
        """-R, +R, -A, +A, -S, +S."""
        node = slicer.vtkMRMLCameraNode
        directions = (node.Left, node.Right, node.Posterior, node.Anterior, node.Inferior, node.Superior)
        self.cameraNode().RotateTo(directions[axis])

    def resetCamera(self, rotation: bool = True, translation: bool = True, distance: bool = True) -> None:
        self.rendered.window.Render()
        self.cameraNode().Reset(rotation, translation, distance, self.rendered.renderer)


class LayoutManager:
    """The conventional four-up layout."""

    threeDViewCount = 1
    layout = 3

    def __init__(self, application_logic, scene, size: tuple[int, int] = (394, 430)):
        orientations = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
        self.views = {name: SliceView(application_logic, scene, name, orientation, size)
                      for name, orientation in orientations.items()}  # fmt: skip
        self.three_d = ThreeDView(application_logic, scene, size)

    def sliceViewNames(self) -> list[str]:
        return list(self.views)

    def sliceWidget(self, name: str) -> SliceView | None:
        return self.views.get(name)

    def mrmlSliceLogics(self):
        return slicer.app.applicationLogic().GetSliceLogics()

    def resetSliceViews(self) -> None:
        for view in self.views.values():
            view.fitSliceToBackground()

    def threeDWidget(self, index: int) -> ThreeDView:
        return self.three_d

    def resetThreeDViews(self) -> None:
        self.three_d.resetFocalPoint()
        self.three_d.resetCamera()
