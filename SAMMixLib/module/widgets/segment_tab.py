"""The tab Segment: the button, what it found, and the corrections."""

from __future__ import annotations

import time
from collections.abc import Callable

import qt
import slicer

from SAMMixLib.module import texts
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.chart import ChartClicks
from SAMMixLib.module.scene.choice import isForeign, ownSegmentation, referenceVolume
from SAMMixLib.module.scene.navigate import watchSlice
from SAMMixLib.module.scene.observe import Watch
from SAMMixLib.module.scene.singletons import plotViewNode, segmentEditorNode
from SAMMixLib.module.session.segment_view import Look, changes, look
from SAMMixLib.module.session.session import Session

BUSY_MS, IDLE_MS, EDIT_MS = 20, 500, 400  # between two looks at the worker, and after an edit of the user's
REDRAW_SECONDS = 0.1  # between two changes of the progress
WHOLE_SCAN, CURRENT_SLICE = range(2)  # of scopeSelector


class SegmentTab:
    """Wires the widgets of the tab.

    Args:
        ui: the panel's widgets as attributes.
        install: asks for, and installs, what the worker needs; whether it is there then.
    """

    def __init__(self, ui, session: Session, install: Callable[[], bool]):
        self.ui, self.session, self._install = ui, session, install
        self.case: Case | None = None
        self.updated: Callable[[], None] = lambda: None  # called after each update, for who shows the case, too
        self._parameters = None
        self._look: Look = {}
        self._updated = 0.0
        self._devices = None
        self._observed: list[Watch] = []
        self._timer, self._editTimer = qt.QTimer(), qt.QTimer()
        self._editTimer.setSingleShot(True)
        self._timer.connect("timeout()", self.onTimer)
        self._editTimer.connect("timeout()", self.onEdited)
        ui.segmentButton.connect("clicked()", self.onSegment)
        ui.unloadButton.connect("clicked()", self.onUnload)
        ui.reviewButton.connect("clicked()", self.onReview)
        ui.noLiverButton.connect("clicked()", self.onNoLiver)
        ui.liverButton.connect("clicked()", self.onLiver)
        ui.editBoxButton.connect("toggled(bool)", self.onEditBox)
        ui.deviceSelector.connect("activated(int)", self.onDevice)
        # A qMRMLPlotWidget would offer the chart in a selector, and drop it since it is hidden from selectors.
        self.plot = slicer.qMRMLPlotView()
        self.plot.setMRMLScene(slicer.mrmlScene)
        self._clicks = ChartClicks(self.plot, self.onChartClicked)
        ui.plotFrame.layout().addWidget(self.plot)

    # Life cycle

    def enter(self, warmUp: bool) -> None:
        self.ui.segmentEditor.installKeyboardShortcuts()
        if warmUp and self.case:
            self.session.warm_up()
        self._timer.start(IDLE_MS)

    def exit(self) -> None:
        self.ui.editBoxButton.checked = False
        self.ui.segmentEditor.setActiveEffect(None)
        self.ui.segmentEditor.uninstallKeyboardShortcuts()
        self.ui.segmentEditor.removeViewObservations()

    def close(self) -> None:
        self._timer.stop()
        self._editTimer.stop()
        self.session.unload()
        self.setParameters(None)

    # The case: the volume and the segmentation that are chosen

    def setParameters(self, parameters) -> None:
        """Take over another parameter node; None when the scene is going."""
        self._parameters = parameters
        if parameters is not None:
            self.ui.segmentEditor.setMRMLSegmentEditorNode(segmentEditorNode())
        self.onParameters()

    def onParameters(self) -> None:
        volume = self._parameters and self._parameters.inputVolume
        segmentation = self._parameters and self._parameters.segmentation
        if self.case is None or volume != self.case.volumeNode:
            if volume and segmentation and isForeign(segmentation, volume):
                segmentation = ownSegmentation(volume)
            self._open(volume, segmentation)
            if self._parameters and self._parameters.segmentation != segmentation:
                self._parameters.segmentation = segmentation  # which comes back here, with the case in place
        elif segmentation != self.case.segmentationNode and not self.session.busy:
            self.case.segmentationNode = segmentation
            self._observe()
            self.session.measure(self.case)
        else:
            self.case.draw(self._findings())
        self.update()

    def _open(self, volume, segmentation) -> None:
        self.ui.editBoxButton.checked = False
        if self.case is not None:
            self.case.hide()
        self.case = None
        if volume:
            editor = self.ui.segmentEditor
            self.case = Case(volume, segmentation, self._parameters, editor.saveStateForUndo, segmentEditorNode())
            self.case.bringIntoView()
            self.case.draw(self._findings())
        self._observe()

    def _observe(self) -> None:
        """Point observers, editor and chart at the nodes of the case."""
        for watch in self._observed:
            watch.stop()
        self._observed = []
        segmentation = self.case.segmentationNode if self.case else None
        if self.case:
            self._observed.append(watchSlice(self.case.volumeNode, self.onSlice))
        if segmentation:
            self._observed.append(self.case.watchSegment(lambda: self._editTimer.start(EDIT_MS)))
        self.ui.segmentEditor.setSegmentationNode(segmentation)
        self.ui.segmentEditor.setSourceVolumeNode(self.case.volumeNode if self.case else None)
        chart = self.case.chartNode() if self.case else None
        self.plot.setMRMLPlotViewNode(plotViewNode(chart) if self._parameters else None)

    def _findings(self):
        return self.session.found.get(self.case.key) if self.case else None

    # What the user does

    def onSegment(self) -> None:
        if self.session.busy and not self.session.correcting:
            self.session.cancel()
        elif self._mayWrite() and self._install():
            alone = self.ui.scopeSelector.currentIndex == CURRENT_SLICE
            k = self.case.current_slice()
            self.session.segment(self.case, [k] if alone and k is not None else None)
        self.update()
        self.onTimer()

    def _mayWrite(self) -> bool:
        """Whether the result may go into the segmentation; the user is asked where it holds another scan's."""
        case = self.case
        node = case and case.segmentationNode
        if node is None or not isForeign(node, case.volumeNode):
            return True
        other = referenceVolume(node)
        question = texts.foreign_question(node.GetName(), case.volumeNode.GetName(), other.GetName() if other else "")
        return slicer.util.confirmYesNoDisplay(question, "SAMMix")

    def onUnload(self) -> None:
        self.session.unload()
        self.update()

    def onDevice(self, index: int) -> None:
        self.session.settings.device = self.ui.deviceSelector.itemData(index)
        self.update()

    def onReview(self) -> None:
        self.case.jumpToReview(self._findings())

    def onChartClicked(self, k: int) -> None:
        if self.case:
            self.case.jump(k)

    def onEditBox(self, on: bool) -> None:
        if self.case:
            self.case.editBox((lambda k, box: self.correct(k, [box])) if on else None)

    def onNoLiver(self) -> None:
        self.correct(self.case.current_slice(), [])

    def onLiver(self) -> None:
        self.correct(self.case.current_slice(), None)

    def correct(self, k: int, boxes) -> None:
        self.session.correct(self.case, {k: boxes})
        if not self.session.correcting:  # refused: the box goes back to where it was
            self.case.draw(self._findings())
        self.update()
        self.onTimer()

    # What happens by itself

    def onTimer(self) -> None:
        """Give the session its turn, and show what came of it."""
        was = self.session.busy
        self.session.tick()
        if was and not self.session.busy and self.case and self._parameters:
            if self._parameters.segmentation != self.case.segmentationNode:
                self._parameters.segmentation = self.case.segmentationNode
            self._observe()
        ended = was != self.session.busy
        if ended or time.monotonic() - self._updated > REDRAW_SECONDS:
            self.update()
        self._timer.start(BUSY_MS if self.session.busy else IDLE_MS)

    def onSlice(self, k: int | None) -> None:
        self.case.draw(self._findings())
        self.update()

    def onEdited(self) -> None:
        if self.case and not self.session.busy and self._findings():
            self.session.measure(self.case)
            self.case.drawChart(self._findings())
            self.case.draw(self._findings())
            self.update()

    def update(self) -> None:
        """Bring the panel into line with the session."""
        self._updated = time.monotonic()
        after = look(self.session, self.case)
        for name, properties in changes(self._look, after).items():
            for key, value in properties.items():
                setattr(getattr(self.ui, name), key, value)
        self._look = after
        if self._devices != self.session.settings.devices:
            self._devices = self.session.settings.devices
            choices = [("auto", "Automatic"), *((device["name"], device["text"]) for device in self._devices)]
            fill(self.ui.deviceSelector, choices, self.session.settings.device)
        self.updated()


def fill(selector, choices: list[tuple[str, str]], current: str) -> None:
    """Offer choices of (value, text) in a combo box."""
    selector.clear()
    for value, text in choices:
        selector.addItem(text, value)
    selector.currentIndex = max(0, selector.findData(current))
