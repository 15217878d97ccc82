"""The tab Models, and the two places where a model is chosen: to segment with, and to train from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.card import CARD
from SAMMixLib.models.registry import NameTaken, export_model, import_model, remove_model
from SAMMixLib.module import texts
from SAMMixLib.module.scene.compare import comparisonCase, similarity
from SAMMixLib.module.session.model_list import COLUMNS, Row, rows, verify
from SAMMixLib.module.session.segment_view import progress_look
from SAMMixLib.module.widgets.desk import Desk
from SAMMixLib.module.widgets.dress import fill
from SAMMixLib.paths import models_folder


class ModelsTab:
    """Wires the widgets of the tab.

    Args:
        install: whether the worker has what it needs; asks before anything is downloaded.
    """

    def __init__(self, ui, desk: Desk, install: Callable[[], bool]):
        self.ui, self.desk, self._install = ui, desk, install
        self._settings = desk.session.settings
        self._rows: list[Row] = []
        self._model = ""  # that the lists show as chosen
        self._comparison = None  # the case of another model's result, while it is made
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
        desk.listen(self.update)

    def refresh(self) -> None:
        """List the models that are on this computer now."""
        self._rows = rows()
        self._say("")
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
        for selector in (self.ui.modelSelector, self.ui.parentSelector):
            fill(selector, usable, self._settings.model)
        if usable:
            self.onChosen(self.ui.modelSelector.currentIndex)

    def onChosen(self, index: int) -> None:
        self._model = self._settings.model = self.ui.modelSelector.itemData(index)
        self.desk.update()

    def onSelected(self) -> None:
        row = self._selected()
        self.ui.modelLabel.text = row.details
        self.ui.verifyLabel.text = "" if row.removable else "It came with the extension, and stays with it."
        self.ui.deleteModelButton.enabled = row.removable
        self.ui.exportModelButton.enabled = row.usable
        self.ui.useParentButton.visible = bool(row.parent)
        self.ui.compareModelButton.enabled = row.usable and self._comparison is None

    def onVerify(self) -> None:
        self.ui.verifyLabel.text = verify(self._selected().name)

    def onDelete(self) -> None:
        name = self._selected().name
        if slicer.util.confirmYesNoDisplay(f"Delete the model {name} from this computer?", "SAMMix"):
            self._change(lambda: remove_model(name))

    def onImport(self) -> None:
        path = qt.QFileDialog.getOpenFileName(None, "Import a model", "", f"Models (*.zip {CARD})")
        if path:
            source = Path(path).parent if Path(path).name == CARD else Path(path)
            self._change(lambda: self._import(source))

    def _import(self, source: Path, name: str | None = None) -> None:
        """Copy a model among the user's; under another name where its own is taken."""
        try:
            import_model(source, name)
        except NameTaken as taken:
            question = f"A model of the name {taken.name} exists. Import it as:"
            given = qt.QInputDialog.getText(None, "SAMMix", question, qt.QLineEdit.Normal, f"{taken.name} 2").strip()
            if given:
                self._import(source, given)

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
        self._say(f"From now on, {parent} segments.")

    def onCompare(self) -> None:
        """Segment the scan with the selected model into a segmentation of its own, beside what is there."""
        case, session, name = self.desk.case, self.desk.session, self._selected().name
        if case is None or not case.has_segment():
            self._say("Segment a scan first: the result is compared with what is there.")
        elif session.busy:
            self._say("Wait until the running segmentation is through.")
        elif self._install():
            self._comparison = (case, comparisonCase(case.volumeNode, name), name)
            session.segment(self._comparison[1], other_model=name)
            self.onSelected()
            self.desk.acted()

    def update(self) -> None:
        """Take over a model that was chosen elsewhere; say how far a comparison is, and what came of it."""
        session = self.desk.session
        if self._rows and self._model != self._settings.model:
            self.refresh()
        if self._comparison is None:
            return
        if session.busy:
            self._say(progress_look(session)["format"] or "Starting")
            return
        (case, other, name), self._comparison = self._comparison, None
        self.onSelected()
        if session.error or not other.has_segment():
            self._say(session.error or "Cancelled.")
            return
        dice, slices = similarity(case, other)
        self._say(
            f"Dice {texts.dice(dice)} between the scan's segmentation and that of {name}, "
            f"which is shown in yellow; they differ most in {slices}."
        )

    def _say(self, text: str) -> None:
        self.ui.compareLabel.text, self.ui.compareLabel.visible = text, bool(text)

    def _selected(self) -> Row:
        return self._rows[max(0, self.ui.modelsTable.currentRow())]

    def _change(self, change: Callable[[], object]) -> None:
        try:
            change()
        except (SAMMixError, OSError) as error:
            slicer.util.errorDisplay(str(error), "SAMMix")
        self.refresh()
