"""The tab Models, and the two places where a model is chosen: to segment with, and to train from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from SAMMixLib.models.card import CARD
from SAMMixLib.models.registry import NameRefused
from SAMMixLib.module import texts
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.compare import comparisonCase, similarity
from SAMMixLib.module.session.comparing import Comparison
from SAMMixLib.module.session.model_list import COLUMNS, ModelList, look
from SAMMixLib.module.widgets.desk import Desk
from SAMMixLib.module.widgets.dress import Dress, fill
from SAMMixLib.paths import models_folder


class ModelsTab:
    """Wires the widgets of the tab.

    Args:
        install: whether the worker has what it needs; asks before anything is downloaded.
    """

    def __init__(self, ui, desk: Desk, install: Callable[[], bool]):
        self.ui, self.desk, self._install = ui, desk, install
        self.models = ModelList(desk.session.settings, lambda text: slicer.util.confirmYesNoDisplay(text, "SAMMix"))
        self.comparison = Comparison[Case](
            desk.session, lambda case, name: comparisonCase(case.volumeNode, name), similarity
        )
        self._dress = Dress(ui)
        self._listed = ()  # changes of the list, and the chosen model, that the widgets show
        ui.modelsTable.verticalHeader().hide()
        ui.modelsTable.horizontalHeader().setStretchLastSection(True)
        ui.modelsTable.connect("itemSelectionChanged()", self.onSelected)
        ui.modelSelector.connect("activated(int)", self.onChosen)
        for button, slot in (
            (ui.verifyModelButton, self.models.verify),
            (ui.deleteModelButton, self.models.delete),
            (ui.useParentButton, self.models.use_parent),
            (ui.importModelButton, self.onImport),
            (ui.exportModelButton, self.onExport),
            (ui.openModelsButton, self.onOpenFolder),
            (ui.compareModelButton, self.onCompare),
        ):
            button.connect("clicked()", self._shown(slot))
        desk.listen(self.update)

    def _shown(self, slot: Callable[[], None]) -> Callable[[], None]:
        """Do it, and show at once what came of it."""

        def act() -> None:
            slot()
            self.desk.update()

        return act

    def refresh(self) -> None:
        """List the models that are on this computer now."""
        self.models.refresh()
        self.comparison.clear()
        self.desk.update()

    def onChosen(self, index: int) -> None:
        self.models.choose(self.ui.modelSelector.itemData(index))
        self.desk.update()

    def onSelected(self) -> None:
        self.models.select(self.ui.modelsTable.currentRow())
        self.update()

    def onImport(self) -> None:
        path = qt.QFileDialog.getOpenFileName(None, "Import a model", "", f"Models (*.zip {CARD})")
        if path:
            self._import(Path(path))

    def _import(self, source: Path, name: str | None = None) -> None:
        """Copy a model among the user's; under another name where its own is taken."""
        try:
            self.models.import_(source, name)
        except NameRefused as refused:
            question = texts.name_question(refused.name, taken=refused.taken)
            proposed = f"{refused.name} 2" if refused.taken else ""
            given = qt.QInputDialog.getText(None, "SAMMix", question, qt.QLineEdit.Normal, proposed).strip()
            if given:
                self._import(source, given)

    def onExport(self) -> None:
        name = self.models.row.name
        path = qt.QFileDialog.getSaveFileName(None, "Export the model", f"{name}.zip", "Models (*.zip)")
        if path:
            self.models.export(Path(path))

    def onOpenFolder(self) -> None:
        models_folder().mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(models_folder())))

    def onCompare(self) -> None:
        """Segment the scan with the selected model into a segmentation of its own, beside what is there, or stop."""
        case = self.desk.case
        if self.comparison.running:
            self.comparison.cancel()
        elif self.comparison.may_begin(case) and self._install():
            self.comparison.begin(case, self.models.row.name)
            self.desk.acted()

    def update(self) -> None:
        """Bring the tab into line with the list, the choice, and a comparison that goes on."""
        self.comparison.tick()
        self.models.follow()
        shown = (self.models.changes, self.models.chosen)
        if self._listed != shown:
            self._listed = shown
            self._list()
        self._dress.wear(look(self.models, self.comparison))

    def _list(self) -> None:
        table = self.ui.modelsTable
        blocked = table.blockSignals(True)  # the selection changes while the table is filled
        table.clear()
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.setRowCount(len(self.models.rows))
        for index, row in enumerate(self.models.rows):
            for column, text in enumerate(self.models.cells(row)):
                table.setItem(index, column, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()
        table.selectRow(self.models.selected)
        table.blockSignals(blocked)
        usable = [(name, name) for name in self.models.usable]
        for selector in (self.ui.modelSelector, self.ui.parentSelector):
            fill(selector, usable, self.models.chosen)
