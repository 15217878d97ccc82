"""The tab Models, and the selector of the model in the tab Segment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from SAMMixLib.bundle import CARD
from SAMMixLib.errors import SAMMixError
from SAMMixLib.models import import_model, remove_model, user_folder
from SAMMixLib.session.model_list import COLUMNS, Row, rows, verify
from SAMMixLib.session.settings import Settings
from SAMMixLib.widgets.segment_tab import fill


class ModelsTab:
    """Wires the widgets of the tab; ``changed`` is called when another model is chosen."""

    def __init__(self, ui, settings: Settings, changed: Callable[[], None]):
        self.ui, self._settings, self._changed = ui, settings, changed
        self._rows: list[Row] = []
        ui.modelsTable.verticalHeader().hide()
        ui.modelsTable.horizontalHeader().setStretchLastSection(True)
        ui.modelsTable.connect("itemSelectionChanged()", self.onSelected)
        ui.modelSelector.connect("activated(int)", self.onChosen)
        ui.verifyModelButton.connect("clicked()", self.onVerify)
        ui.deleteModelButton.connect("clicked()", self.onDelete)
        ui.importModelButton.connect("clicked()", self.onImport)
        ui.openModelsButton.connect("clicked()", self.onOpenFolder)

    def refresh(self) -> None:
        """List the models that are on this computer now."""
        self._rows = rows()
        table = self.ui.modelsTable
        table.clear()
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.setRowCount(len(self._rows))
        for index, row in enumerate(self._rows):
            for column, text in enumerate(row.cells):
                table.setItem(index, column, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()
        table.selectRow(0)
        usable = [(row.name, row.name) for row in self._rows if row.usable]
        fill(self.ui.modelSelector, usable, self._settings.model)
        if usable:
            self.onChosen(self.ui.modelSelector.currentIndex)

    def onChosen(self, index: int) -> None:
        self._settings.model = self.ui.modelSelector.itemData(index)
        self._changed()

    def onSelected(self) -> None:
        self.ui.modelLabel.text = self._selected().details
        self.ui.deleteModelButton.enabled = self._selected().removable

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

    def onOpenFolder(self) -> None:
        user_folder().mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(user_folder())))

    def _selected(self) -> Row:
        return self._rows[max(0, self.ui.modelsTable.currentRow())]

    def _change(self, change: Callable[[], object]) -> None:
        try:
            change()
        except (SAMMixError, OSError) as error:
            slicer.util.errorDisplay(str(error), "SAMMix")
        self.refresh()
