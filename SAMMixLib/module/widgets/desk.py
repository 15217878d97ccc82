"""What all tabs look at: the session, and the case of the volume and segmentation that are chosen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import qt
import slicer

from SAMMixLib.module import texts
from SAMMixLib.module.case_state import Findings
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.chart import ChartClicks
from SAMMixLib.module.scene.choice import isForeign, ownSegmentation, showOwn
from SAMMixLib.module.scene.navigate import watchSlice
from SAMMixLib.module.scene.observe import Watch
from SAMMixLib.module.scene.singletons import firstVolume, isVolume, plotViewNode, segmentEditorNode, shownVolume
from SAMMixLib.module.scene.surface import SurfaceMaker, removeSurface
from SAMMixLib.module.session.session import Session
from SAMMixLib.module.widgets.editor import Editor
from SAMMixLib.module.widgets.view3d import showFromFront

BUSY_MS, IDLE_MS, EDIT_MS = 20, 500, 400  # between two looks at the worker, and after an edit of the user's
REDRAW_SECONDS = 0.1  # between two changes of the progress


class Cases:
    """The cases of all volumes that were chosen, each with what it has measured: coming back costs no second look."""

    def __init__(self, beforeWrite: Callable[[Any], None]):
        self._beforeWrite = beforeWrite
        self._known: dict[str, Case] = {}
        self.left: Case | None = None  # that was open last; its scan may be gone

    def of(self, volume, parameters) -> Case:
        known = self._known.get(volume.GetID())
        if known is None or known.volumeNode is not volume:
            known = Case(volume, None, parameters, self._beforeWrite, segmentEditorNode())
            self._known[volume.GetID()] = known
        return known

    def drop(self, volume) -> None:
        self._known.pop(volume.GetID(), None)

    def clear(self) -> None:
        self._known.clear()
        self.left = None


class Arrivals:
    """The volume that came into the scene last, until the views show it: a reader may look after the application's
    events before it puts its volume there.
    """

    def __init__(self) -> None:
        self._awaited = ""

    def came(self, volume) -> None:
        if isVolume(volume):
            self._awaited = volume.GetID()

    @property
    def seen(self) -> bool:
        """Whether what was awaited is in the views now."""
        shown = shownVolume() if self._awaited else None
        return shown is not None and shown.GetID() == self._awaited

    def take(self):
        """What the views show, where that can be the input; it is awaited no more."""
        if self.seen:
            self._awaited = ""
        shown = shownVolume()
        return shown if shown and isVolume(shown) else None


class Desk:
    """Keeps case, scene and session in line, and tells the tabs when there is something new to show.

    Args:
        editor: the panel's Segment Editor.
        choose: puts a ``texts.Question`` to the user, and gives back the answer.
    """

    def __init__(self, editor, session: Session, choose: Callable[[texts.Question], str]):
        self.session, self.choose = session, choose
        self.case: Case | None = None
        self._cases = Cases(self._beforeWrite)
        self._arrivals = Arrivals()
        self._editor = Editor(editor)
        self._parameters: Any = None
        self._listeners: list[Callable[[], None]] = []
        self._updated = 0.0
        self._entered = self._muted = False
        self._observed: list[Watch] = []
        self._surfaces = SurfaceMaker()
        self._timer, self._editTimer, self._addedTimer = qt.QTimer(), qt.QTimer(), qt.QTimer()
        slots = (self._timer, self.onTimer), (self._editTimer, self.onEdited), (self._addedTimer, self.onVolumeAdded)
        for timer, slot in slots:
            timer.setSingleShot(True)
            timer.connect("timeout()", slot)
        # A qMRMLPlotWidget would offer the chart in a selector, and drop it since it is hidden from selectors.
        self.plot = slicer.qMRMLPlotView()
        self.plot.setMRMLScene(slicer.mrmlScene)
        self._clicks = ChartClicks(self.plot, self.jump)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back whenever the tabs may have something new to show."""
        self._listeners.append(callback)

    @property
    def drawing3D(self) -> bool:
        """Whether a surface is being made."""
        return self._surfaces.busy

    @property
    def findings(self) -> Findings | None:
        """What is known of the case."""
        return self.session.findings(self.case)

    @property
    def slice(self) -> int | None:
        """The slice of the case that is looked at; None without a case, or off its stack."""
        return self.case.current_slice() if self.case else None

    # Life cycle

    def enter(self, warmUp: bool) -> None:
        self._editor.enter()
        if warmUp and self.case:
            self.session.warm_up()
        self._entered = True
        self.onVolumeAdded()  # while another module was open, maybe
        if self.case is not None:
            self.case.drawing.bringIntoView(fit=False)
        self._draw()
        self._timer.start(IDLE_MS)

    def exit(self) -> None:
        """Another module comes: what is ours goes from the views, and the user's own foreground comes back."""
        self._editor.exit()
        self._entered = False
        if self.case is not None:
            self.case.drawing.shown = False
            self.case.drawing.hide()

    def close(self) -> None:
        for timer in (self._timer, self._editTimer, self._addedTimer):
            timer.stop()
        self.session.unload()
        self.setParameters(None)

    # The case

    def setParameters(self, parameters) -> None:
        """Take over another parameter node; None when the module is left or the scene is going."""
        self._parameters = parameters
        if parameters is not None:
            self._editor.takeScene()
        else:
            self._cases.clear()
            self._surfaces.forget()
        self.onParameters()

    def onParameters(self) -> None:
        volume = self._parameters and self._parameters.inputVolume
        segmentation = self._parameters and self._parameters.segmentation
        if self.case is None or volume is not self.case.volumeNode:
            if volume and (segmentation is None or isForeign(segmentation, volume)):
                segmentation = ownSegmentation(volume)
            self._open(volume, segmentation)
            if self._writeBack():
                return  # and was called again by it
        elif segmentation is not self.case.segmentationNode and not self.session.busy:
            self.case.segmentationNode = segmentation
            self._observe()
            self._editTimer.start(0)
        self._draw()
        self.update()

    def volumeAdded(self, volume) -> None:
        """A volume came into the scene: it is looked at when the application has put it into its views."""
        self._arrivals.came(volume)
        self._addedTimer.start(0)

    def onVolumeAdded(self) -> None:
        """Choose the volume that the views show now; any if they show none, and none is chosen. A run is waited for."""
        if self.session.busy:
            self._draw()  # nothing of the scan that is worked on lies over another one
            return
        chosen = self._arrivals.take() or (firstVolume() if self.case is None else None)
        if chosen and self._entered:
            self._parameters.inputVolume = chosen

    def volumeRemoved(self, volume) -> None:
        """A volume goes: a run on it ends now."""
        if self.case is not None and volume is self.case.volumeNode:
            self.session.scan_removed(self.case)
        self._cases.drop(volume)

    def useSegmentation(self, segmentation) -> None:
        """Go on with another segmentation; None for one that the next result makes."""
        if self.case is not None:
            self.case.segmentationNode = segmentation
            self._writeBack()
            self._observe()

    def jump(self, k: int | None) -> None:
        if self.case is not None and k is not None:
            self.case.jump(k)

    def mute(self, on: bool) -> None:
        """Leave the heat map away, or show it again as the user wants it."""
        self._muted = on
        self._draw()

    def acted(self) -> None:
        """Show at once what a click did, and look soon at what it began."""
        self.update()
        self._timer.start(0 if self.session.busy else IDLE_MS)

    def _open(self, volume, segmentation) -> None:
        before, self.case = self.case, None
        self._unobserve()  # what the views come to now is no news of the last case
        if before is not None:
            before.drawing.hide()
            self._cases.left = before
        if volume:
            if self._cases.left is not None:
                showOwn(segmentation, volume, self._cases.left.segmentationNode)
            self.case = self._cases.of(volume, self._parameters)
            self.case.segmentationNode = segmentation
            self.case.drawing.shown = self._entered
            self.case.drawing.bringIntoView(fit=self._cases.left is not None)
            if self._entered and not self.session.busy:  # else what happened is still to be read
                self.session.dismiss()
        self._observe()
        self._editTimer.start(0)  # not now: a scene that is being loaded is not whole yet

    def _writeBack(self) -> bool:
        """Tell the selectors which segmentation it is, and be called again by them; whether they had another one."""
        case = self.case
        if not (case and self._parameters) or self._parameters.segmentation is case.segmentationNode:
            return False
        self._parameters.segmentation = case.segmentationNode
        return True

    def _unobserve(self) -> None:
        for watch in self._observed:
            watch.stop()
        self._observed = []

    def _observe(self) -> None:
        """Point observers, editor and chart at the nodes of the case."""
        self._unobserve()
        case = self.case
        segmentation = case.segmentationNode if case else None
        if case:
            self._observed.append(watchSlice(case.volumeNode, self.onSlice))
        if case and segmentation:
            self._observed.append(case.watchSegment(lambda: self._editTimer.start(EDIT_MS)))
        self._editor.point(case and case.volumeNode, segmentation)
        self._showChart()

    def _showChart(self) -> None:
        chart = self.case.drawing.chartNode() if self.case else None
        self.plot.setMRMLPlotViewNode(plotViewNode(chart) if self._parameters else None)

    def _beforeWrite(self, segmentation) -> None:
        """The surface goes first: Slicer would make it again at once, on the main thread."""
        self._editor.saveState(segmentation)
        removeSurface(segmentation)

    def _measure(self) -> None:
        """What can be said of the segment as it is now."""
        if self.case is not None and (findings := self.findings) is not None:
            self.case.drawing.chart(findings)
            self._showChart()

    def _draw(self) -> None:
        """Bring heat map, box and surface into line with what is known and wanted."""
        if self.case is None:
            return
        self.case.drawing.shown, self.case.drawing.muted = self._entered, self._muted
        self.case.drawing.update(self.findings)
        if self.case.has_segment() and not self.session.busy:
            self._surfaces.show(self.case.segmentationNode, self._parameters.show3D, self.case.structure)

    # What happens by itself

    def onTimer(self) -> None:
        """Give the session its turn, and show what came of it."""
        was = self.session.busy
        self.session.tick()
        if was and not self.session.busy and self.case and self._parameters:
            if self.case.has_segment() and not self.session.error:
                self.case.segmentationNode.SetDisplayVisibility(True)
            self._writeBack()
            self._observe()
            self._draw()
        if self._surfaces.poll():
            showFromFront()
        if self._arrivals.seen:
            self.onVolumeAdded()
        if was != self.session.busy or time.monotonic() - self._updated > REDRAW_SECONDS:
            self.update()
        self._timer.start(BUSY_MS if self.session.busy or self._surfaces.busy else IDLE_MS)

    def onSlice(self, k: int | None) -> None:
        if self.case is not None:
            self.case.drawing.update(self.findings)
        self.update()

    def onEdited(self) -> None:
        if self.case and not self.session.busy:
            self._editor.point(self.case.volumeNode, self.case.segmentationNode)  # after a scene was read
            self._measure()
            self._draw()
            self.acted()

    def update(self) -> None:
        """Let the tabs show how things are."""
        self._updated = time.monotonic()
        for callback in self._listeners:
            callback()
