"""The tab Correct: by the box, by a word, or by hand in the Segment Editor."""

from __future__ import annotations

from SAMMixLib.module.case_state import Box
from SAMMixLib.module.session.segment_view import correct_look
from SAMMixLib.module.widgets.desk import Desk
from SAMMixLib.module.widgets.dress import Dress


class CorrectTab:
    """Wires the widgets of the tab. While it is open the scan is seen without the heat map."""

    def __init__(self, ui, desk: Desk):
        self.ui, self.desk = ui, desk
        self._dress = Dress(ui)
        self._case = None  # whose box can be dragged
        ui.editBoxButton.connect("toggled(bool)", self.onEditBox)
        ui.liverButton.connect("clicked()", self.onLiver)
        ui.noLiverButton.connect("clicked()", self.onNoLiver)
        ui.tabs.connect("currentChanged(int)", self.onTab)
        desk.listen(self.update)

    def close(self) -> None:
        """End the dragging of the box."""
        self.ui.editBoxButton.checked = False

    def onTab(self, index: int) -> None:
        here = index == self.ui.tabs.indexOf(self.ui.correctTab)
        if not here:
            self.close()
            self.ui.segmentEditor.setActiveEffect(None)  # no brush is in sight: a click in a view must not paint
        self.desk.mute(here)

    def onEditBox(self, on: bool) -> None:
        if on:
            self.ui.segmentEditor.setActiveEffect(None)  # the mouse is for one of the two
        self._case = self.desk.case if on else None
        if self.desk.case is not None:
            self.desk.case.drawing.editBox((lambda k, box: self.correct(k, [box])) if on else None)

    def onLiver(self) -> None:
        self.correct(self.desk.slice, None)

    def onNoLiver(self) -> None:
        self.correct(self.desk.slice, [])

    def correct(self, k: int | None, boxes: list[Box] | None) -> None:
        if (case := self.desk.case) is not None and k is not None:
            self.desk.session.correct(case, {k: boxes})
            if not self.desk.session.correcting:  # refused: the box goes back to where it was
                case.drawing.update(self.desk.findings)
        self.desk.acted()

    def update(self) -> None:
        if self._case is not self.desk.case or self.ui.segmentEditor.activeEffect() is not None:
            self.close()
        self._dress.wear(correct_look(self.desk.session, self.desk.case))
