"""What is drawn over a case: heat map, box, chart and surface. All of it is ours, and goes when the module is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import slicer

from SAMMixLib.module.scene.boxes import boxNode, setEditable, showBox, watchBox
from SAMMixLib.module.scene.chart import OUT_OF_SIGHT, showChart
from SAMMixLib.module.scene.hygiene import helper
from SAMMixLib.module.scene.navigate import alignView, currentSlice, jumpToSlice
from SAMMixLib.module.scene.observe import Watch
from SAMMixLib.module.scene.overlay import hideCam, loadCam, setThreshold, showCam
from SAMMixLib.module.scene.singletons import shownVolume

if TYPE_CHECKING:
    from SAMMixLib.module.case_state import Box, Findings

LIVER_WINDOW = (200.0, 95.0)  # HU, width and centre: livers have 60 to 130 HU, which are the middle third of the greys


class Overlays(Protocol):
    """What is to be drawn; the module's parameter node is one."""

    heatMap: bool
    legend: bool
    opacity: float
    threshold: float
    box: bool
    show3D: bool


class CaseDrawing:
    """Draws over one volume node.

    Attributes:
        shown: whether the module is open; nothing of it is drawn over another one.
        muted: no heat map for the moment, whatever the overlays say: the user corrects, and wants to see the scan.
    """

    def __init__(self, volumeNode, overlays: Overlays):
        self._volumeNode, self._overlays = volumeNode, overlays
        self.shown, self.muted = True, False
        self._boxWatch: Watch | None = None
        self._charted: tuple = ()  # the curves that the chart shows
        self._left: int | None = None  # the slice that was looked at last

    def take(self, findings: Findings) -> Iterator[None]:
        """Bring what a run found into the scene, step by step."""
        if findings.cam is not None:
            loadCam(findings.cam, self._volumeNode, findings.cam_slices)
            yield
        self.chart(findings)
        yield
        self.update(findings)

    def update(self, findings: Findings | None) -> None:
        """Bring heat map and box into line with the overlays, the slice that is looked at, and what is known."""
        if self._volumeNode.GetScene() is None:
            return
        seen = self.shown and shownVolume() in (self._volumeNode, None)  # not over another scan
        known = findings if seen and findings and findings.by_model and findings.slice_range is not None else None
        if (cam := helper(self._volumeNode, "cam")) is not None:
            setThreshold(cam, self._overlays.threshold)
            if known and self._overlays.heatMap and not self.muted:
                showCam(cam, self._overlays.opacity)
                legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(cam)
                legend.SetVisibility(self._overlays.legend)
            else:
                hideCam(cam)
        k = currentSlice(self._volumeNode) if seen else None
        self._left = self._left if k is None else k
        if known:
            boxes = known.boxes.get(k, []) if self._overlays.box and k is not None else []
            showBox(boxNode(self._volumeNode), self._volumeNode, k, boxes[0] if boxes else None)
        elif (box := helper(self._volumeNode, "box")) is not None:
            box.GetDisplayNode().SetVisibility(False)

    def chart(self, findings: Findings) -> None:
        """Bring the chart into line; what it shows already is not written again, since each change is drawn at once."""
        p, area = findings.curves()
        p, area = np.nan_to_num(p, nan=OUT_OF_SIGHT), np.nan_to_num(area)  # nobody looked there: no curve
        curves = (p.tobytes(), area.tobytes(), tuple(findings.review))
        if curves != self._charted or self.chartNode() is None:
            self._charted = curves
            showChart(self._volumeNode, p, area, findings.review)

    def chartNode(self):
        return helper(self._volumeNode, "chart")

    def editBox(self, dragged: Callable[[int, Box], None] | None) -> None:
        """Let the user drag the box, and call ``dragged(k, box)`` after each drag; None ends it.

        The red view turns parallel to the slices first: elsewhere it would cut the box of an oblique stack aslant.
        """
        if self._boxWatch is not None:
            self._boxWatch.stop()
            self._boxWatch = None
        if self._volumeNode.GetScene() is None:
            return
        box = boxNode(self._volumeNode) if dragged else helper(self._volumeNode, "box")
        if box is not None:
            setEditable(box, dragged is not None)
        if dragged is not None:
            alignView(self._volumeNode)
            self._boxWatch = watchBox(box, self._volumeNode, dragged)

    def hide(self) -> None:
        """Take heat map and box from the views; the user's own foreground comes back."""
        self.editBox(None)
        if (cam := helper(self._volumeNode, "cam")) is not None:
            hideCam(cam)
        if (box := helper(self._volumeNode, "box")) is not None:
            box.GetDisplayNode().SetVisibility(False)

    def bringIntoView(self, fit: bool) -> None:
        """Show the volume at the slice that was left, where the slice views show another one, or if `fit` says so."""
        red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
        if fit or (red is not None and red.GetBackgroundVolumeID() != self._volumeNode.GetID()):
            slicer.util.setSliceViewerLayers(background=self._volumeNode, fit=True)
            if self._left is not None:
                jumpToSlice(self._volumeNode, self._left)

    def liverWindow(self) -> None:
        """Show the liver's parenchyma with contrast. What the model sees is not touched by it."""
        display = self._volumeNode.GetDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevel(*LIVER_WINDOW)
