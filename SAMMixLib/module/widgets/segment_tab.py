"""The tab Segment: the button, and what it found."""

from __future__ import annotations

from collections.abc import Callable

from SAMMixLib.module.session.segment_view import look
from SAMMixLib.module.widgets.desk import Desk
from SAMMixLib.module.widgets.dress import Dress, fill

CURRENT_SLICE = 1  # of scopeSelector


class SegmentTab:
    """Wires the widgets of the tab.

    Args:
        ui: the panel's widgets as attributes.
        install: asks for, and installs, what the worker needs; whether it is there then.
    """

    def __init__(self, ui, desk: Desk, install: Callable[[], bool]):
        self.ui, self.desk, self._install = ui, desk, install
        self._dress = Dress(ui)
        self._devices = None
        self._whole = False  # whether the run that goes on is one of the whole scan
        for button, slot in (
            (ui.segmentButton, self.onSegment),
            (ui.unloadButton, self.onUnload),
            (ui.windowButton, self.onWindow),
            (ui.largestButton, self.onLargest),
            (ui.reviewButton, self.onReview),
        ):
            button.connect("clicked()", slot)
        ui.deviceSelector.connect("activated(int)", self.onDevice)
        ui.scopeSelector.connect("currentIndexChanged(int)", self.update)
        # Room for two lines, which it takes on some slices: the chart below stays where it is.
        ui.sliceLabel.setMinimumHeight(2 * ui.sliceLabel.fontMetrics().lineSpacing())
        ui.plotFrame.layout().addWidget(desk.plot)
        desk.listen(self.update)

    def onSegment(self) -> None:
        session, case = self.desk.session, self.desk.case
        if session.busy and not session.correcting:
            session.cancel()
        elif case is not None and self._install():
            slices = self._slices()
            session.segment(case, slices)
            self._whole = session.busy and slices is None
        self.desk.acted()

    def _slices(self) -> list[int] | None:
        """Those that are to be segmented; None for all."""
        alone = self.ui.scopeSelector.currentIndex == CURRENT_SLICE
        k = self.desk.slice if alone else None
        return None if k is None else [k]

    def onUnload(self) -> None:
        self.desk.session.unload()
        self.desk.update()

    def onDevice(self, index: int) -> None:
        self.desk.session.settings.device = self.ui.deviceSelector.itemData(index)
        self.desk.update()

    def onWindow(self) -> None:
        if self.desk.case is not None:
            self.desk.case.drawing.liverWindow()

    def onLargest(self) -> None:
        if (findings := self.desk.findings) is not None:
            self.desk.jump(findings.largest)

    def onReview(self) -> None:
        if self.desk.case is not None and (findings := self.desk.findings) is not None:
            self.desk.case.jumpToReview(findings)

    def update(self, *_) -> None:
        """Bring the tab into line with the session; a whole scan that is through is shown where it is largest."""
        session, findings = self.desk.session, self.desk.findings
        if self._whole and not session.busy:
            self._whole = False
            if findings is not None and not session.error:
                self.desk.jump(findings.largest)
        self._dress.wear(look(session, self.desk.case, self._slices()))
        if self._devices != session.settings.devices:
            self._devices = session.settings.devices
            choices = [("auto", "Automatic"), *((device["name"], device["text"]) for device in self._devices)]
            fill(self.ui.deviceSelector, choices, session.settings.device)
