"""The tab Models, and the selector of the model in the tab Segment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.card import CARD
from SAMMixLib.models.registry import export_model, import_model, remove_model
from SAMMixLib.module.scene.compare import comparisonCase, similarity
from SAMMixLib.module.session.model_list import COLUMNS, Row, rows, verify
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.module.widgets.segment_tab import SegmentTab, fill
from SAMMixLib.paths import models_folder

POLL_MS = 200


class ModelsTab:
    """Wires the widgets of the tab, and tells the tab Segment when another model is chosen.

    Args:
        install: whether the worker has what it needs; asks before anything is downloaded.
    """

    def __init__(self, ui, settings: Settings, segmentTab: SegmentTab, install: Callable[[], bool]):
        self.ui, self._settings, self._segmentTab, self._install = ui, settings, segmentTab, install
        self.refreshed: Callable[[], None] = lambda: None  # called when the list may have changed
        self._rows: list[Row] = []
        self._comparison = None  # the case of another model's result, while it is made
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self.onTimer)
        ui.modelsTable.verticalHeader().hide()
        ui.modelsTable.horizontalHeader().setStretchLastSection(True)
        ui.modelsTable.connect("itemSelectionChanged()", self.onSelected)
        ui.modelSelector.connect("activated(int)", self.onChosen)
        for button, slot in (
            (ui.verifyModelButton, self.onVerify),
            (ui.deleteModelButton, self.onDelete),
            (ui.importModelButton, self.onImport),
            (ui.exportModelButton, self.onExport),
            (ui.openModelsButton, self.onOpenFolder),
            (ui.useParentButton, self.onUseParent),
            (ui.compareModelButton, self.onCompare),
        ):
            button.connect("clicked()", slot)

    def refresh(self) -> None:
        """List the models that are on this computer now."""
        self._rows = rows()
        self.ui.compareLabel.text = ""
        table = self.ui.modelsTable
        blocked = table.blockSignals(True)  # the selection changes while the table is filled
        table.clear()
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.setRowCount(len(self._rows))
        for index, row in enumerate(self._rows):
            for column, text in enumerate(row.cells):
                table.setItem(index, column, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()
        table.selectRow(0)
        table.blockSignals(blocked)
        self.onSelected()
        usable = [(row.name, row.name) for row in self._rows if row.usable]
        fill(self.ui.modelSelector, usable, self._settings.model)
        if usable:
            self.onChosen(self.ui.modelSelector.currentIndex)
        self.refreshed()

    def close(self) -> None:
        self._timer.stop()

    def onChosen(self, index: int) -> None:
        self._settings.model = self.ui.modelSelector.itemData(index)
        self._segmentTab.update()

    def onSelected(self) -> None:
        row = self._selected()
        self.ui.modelLabel.text = row.details
        self.ui.deleteModelButton.enabled = row.removable
        self.ui.exportModelButton.enabled = row.usable
        self.ui.useParentButton.enabled = bool(row.parent)
        self.ui.compareModelButton.enabled = row.usable and self._comparison is None

    def onVerify(self) -> None:
        self.ui.modelLabel.text = verify(self._selected().name)

    def onDelete(self) -> None:
        name = self._selected().name
        if slicer.util.confirmYesNoDisplay(f"Delete the model {name} from this computer?", "SAMMix"):
            self._change(lambda: remove_model(name))

    def onImport(self) -> None:
        path = qt.QFileDialog.getOpenFileName(None, "Import a model", "", f"Models (*.zip {CARD})")
        if path:
            source = Path(path)
            self._change(lambda: import_model(source.parent if source.name == CARD else source))

    def onExport(self) -> None:
        name = self._selected().name
        path = qt.QFileDialog.getSaveFileName(None, "Export the model", f"{name}.zip", "Models (*.zip)")
        if path:
            self._change(lambda: export_model(name, Path(path)))

    def onOpenFolder(self) -> None:
        models_folder().mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(models_folder())))

    def onUseParent(self) -> None:
        """Roll back: segment with the model that this one was trained from."""
        parent = self._selected().parent
        self._settings.model = parent
        self.refresh()
        self.ui.compareLabel.text = f"From now on, {parent} segments."

    def onCompare(self) -> None:
        """Segment the scan with the selected model into a segmentation of its own, beside what is there."""
        case, session, name = self._segmentTab.case, self._segmentTab.session, self._selected().name
        if case is None or not case.has_segment():
            self.ui.compareLabel.text = "Segment a scan first: the result is compared with what is there."
        elif session.busy:
            self.ui.compareLabel.text = "Wait until the running segmentation is through."
        elif self._install():
            self._comparison = (case, comparisonCase(case.volumeNode, name), name)
            session.segment(self._comparison[1], other_model=name)
            self._timer.start(POLL_MS)
            self._segmentTab.onTimer()
            self.onTimer()

    def onTimer(self) -> None:
        """Say how far the comparison is, and what came of it."""
        session = self._segmentTab.session
        if session.busy:
            self.ui.compareLabel.text = self.ui.progressBar.format or "Starting"
            return
        self._timer.stop()
        (case, other, name), self._comparison = self._comparison, None
        self.onSelected()
        if session.error or not other.has_segment():
            self.ui.compareLabel.text = session.error or "Cancelled."
            return
        dice, slices = similarity(case, other)
        self.ui.compareLabel.text = (
            f"Dice {dice:.3f} between the scan's segmentation and that of {name}, "
            f"which is shown in yellow; they differ most in {slices}."
        )

    def _selected(self) -> Row:
        return self._rows[max(0, self.ui.modelsTable.currentRow())]

    def _change(self, change: Callable[[], object]) -> None:
        try:
            change()
        except (SAMMixError, OSError) as error:
            slicer.util.errorDisplay(str(error), "SAMMix")
        self.refresh()
