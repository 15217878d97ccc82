"""The tab Train: collect slices, train a model on them, and see what it is worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qt

from SAMMixLib.data.training_set import CARD
from SAMMixLib.module.scene.collect import CaseSource
from SAMMixLib.module.session.collecting import Collector, kind
from SAMMixLib.module.session.model_list import rows
from SAMMixLib.module.session.pictures import slice_picture
from SAMMixLib.module.session.segment_view import Look, changes
from SAMMixLib.module.session.train_view import look
from SAMMixLib.module.session.training import PRESETS, Training, new_name
from SAMMixLib.module.widgets.pictures import curves, pixmap
from SAMMixLib.module.widgets.segment_tab import SegmentTab, fill
from SAMMixLib.structure import KNOWN, structure_named

BUSY_MS, IDLE_MS = 20, 500
REDRAW_SECONDS = 0.3
COLUMNS = ("", "Scan", "Slice", "Kind")
PICTURE, SCAN, SLICE, KIND = range(4)
ROW = 44  # pixels of a row of the list
CURVES = (320, 120)  # pixels
HELD_OUT = 150  # pixels of a held-out slice
REFERENCE, BEFORE, AFTER = (90, 220, 90), (255, 170, 40), (80, 170, 255)


class TrainTab:
    """Wires the widgets of the tab.

    Args:
        ui: the panel's widgets as attributes.
        segmentTab: whose volume and segmentation slices are collected from.
        install: asks for, and installs, what training needs; whether it is there then.
        used: called when a new model was put among the user's.
    """

    def __init__(
        self,
        ui,
        segmentTab: SegmentTab,
        collector: Collector,
        training: Training,
        install: Callable[[], bool],
        used: Callable[[], None],
    ):
        self.ui, self.collector, self.training = ui, collector, training
        self._segmentTab, self._install, self._used = segmentTab, install, used
        self._look: Look = {}
        self._listed = -1  # the collector's changes that the list shows
        self._drawn = (-1, None)  # figures and outcome that are drawn
        self._updated = 0.0
        self._picture = 0  # which held-out slice
        self._items: list = []  # of the list's first column, one for each entry
        self._unpictured: list[int] = []  # entries without their thumbnail yet
        self._filling = False
        self._suggesting, self._suggestion = False, None
        self._source: tuple = ()
        segmentTab.updated = self.update
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self.onTimer)
        for button, slot in (
            (ui.useSliceButton, self.onUseSlice),
            (ui.useEditedButton, self.onUseEdited),
            (ui.emptySliceButton, self.onEmptySlice),
            (ui.fromHereButton, lambda: self._here(ui.fromSpinBox)),
            (ui.toHereButton, lambda: self._here(ui.toSpinBox)),
            (ui.rangeButton, self.onRange),
            (ui.suggestButton, self.onSuggest),
            (ui.createSetButton, self.onCreateSet),
            (ui.openSetButton, self.onOpenSet),
            (ui.exportSetButton, self.onExportSet),
            (ui.trainButton, self.onTrain),
            (ui.resumeButton, self.onResume),
            (ui.discardButton, self.onDiscard),
            (ui.useModelButton, self.onUseModel),
            (ui.nextPictureButton, self.onNextPicture),
        ):
            button.connect("clicked()", slot)
        ui.newSetButton.connect("toggled(bool)", self.onNewSet)
        ui.setSelector.connect("activated(int)", self.onSet)
        ui.slicesTable.connect("cellChanged(int,int)", self.onTicked)
        ui.slicesTable.connect("cellDoubleClicked(int,int)", self.onDoubleClicked)
        ui.newSetFrame.visible = False
        ui.curvesLabel.setMinimumHeight(CURVES[1])
        ui.slicesTable.verticalHeader().hide()
        ui.slicesTable.verticalHeader().setDefaultSectionSize(ROW)
        ui.slicesTable.setIconSize(qt.QSize(ROW - 4, ROW - 4))
        ui.slicesTable.horizontalHeader().setStretchLastSection(True)
        fill(ui.structureSelector, [(structure.name, structure.name) for structure in KNOWN], KNOWN[0].name)
        fill(ui.presetSelector, list(PRESETS.items()), next(iter(PRESETS)))

    # Life cycle

    def enter(self) -> None:
        self._timer.start(IDLE_MS)

    def close(self) -> None:
        self._timer.stop()
        self.training.close()

    def refreshModels(self) -> None:
        """List the models that a training can start from."""
        usable = [(row.name, row.name) for row in rows() if row.usable]
        fill(self.ui.parentSelector, usable, self.training.settings.model)

    # What the user does

    @property
    def case(self):
        return self._segmentTab.case

    def onUseSlice(self) -> None:
        self.collector.take(self.source(), [self.case.current_slice()], "accepted")
        self._acted()

    def onUseEdited(self) -> None:
        edited = self.source().edited(self.collector.structure)
        if edited:
            self.collector.take(self.source(), edited, "edited")
        else:
            self.collector.message = "No slice is edited: all are as the model left them."
        self._acted()

    def onEmptySlice(self) -> None:
        self.collector.exclude(self.source(), self.case.current_slice())
        self._acted()

    def onRange(self) -> None:
        ui = self.ui
        self.collector.label(self.source(), ui.fromSpinBox.value, ui.toSpinBox.value, ui.restCheckBox.checked)
        self._acted()

    def onSuggest(self) -> None:
        self.collector.message, self._segmentTab.session.suggested = "", None
        self.collector.identify(self.source())
        self._suggesting = True
        self._acted()

    def onSet(self, index: int) -> None:
        self.collector.open(Path(self.ui.setSelector.itemData(index)))
        self.update()

    def onNewSet(self, on: bool) -> None:
        self.ui.newSetFrame.visible = on

    def onCreateSet(self) -> None:
        structure = structure_named(self.ui.structureSelector.itemData(self.ui.structureSelector.currentIndex))
        self.collector.create(self.ui.setNameEdit.text, structure)
        if not self.collector.error:
            self.ui.newSetButton.checked = False
            self.ui.setNameEdit.text = ""
        self.update()

    def onOpenSet(self) -> None:
        path = qt.QFileDialog.getOpenFileName(None, "Open a training set", "", f"Training sets ({CARD} *.zip)")
        if path:
            chosen = Path(path)
            self.collector.open(chosen.parent) if chosen.name == CARD else self.collector.import_(chosen)
            self._acted()

    def onExportSet(self) -> None:
        name = f"{self.collector.set.name}.zip"
        path = qt.QFileDialog.getSaveFileName(None, "Export the training set", name, "Zip files (*.zip)")
        if path:
            self.collector.export(Path(path))
            self._acted()

    def onTicked(self, row: int, column: int) -> None:
        """Tick or untick the slice, and with it all that are selected if it is one of them."""
        if self._filling or column != PICTURE:
            return
        table = self.ui.slicesTable
        state = table.item(row, PICTURE).checkState()
        selected = {index.row() for index in table.selectionModel().selectedRows()}
        items = [table.item(each, PICTURE) for each in (selected if row in selected else {row})]
        entries = [self.collector.entries[item.data(qt.Qt.UserRole)] for item in items]
        ticked = state == qt.Qt.Checked
        if any(entry.active != ticked for entry in entries):
            self.collector.set_active(entries, ticked)
            self._filling = True
            for item in items:
                item.setCheckState(state)
            self._filling = False
            if not self.collector.error:
                self._listed = self.collector.changes  # the list shows it already
            self.update()

    def onDoubleClicked(self, row: int, column: int) -> None:
        entry = self.collector.entries[self.ui.slicesTable.item(row, PICTURE).data(qt.Qt.UserRole)]
        if self.case and self.source().name == entry.provenance.get("volume"):
            self.case.jump(entry.slice)

    def onTrain(self) -> None:
        if self.training.busy:
            self.training.stop()
        elif self._install():
            name = self.ui.modelNameEdit.text.strip() or new_name(self.collector.set.structure.name)
            self.ui.modelNameEdit.text = name
            parent, preset = _chosen(self.ui.parentSelector), _chosen(self.ui.presetSelector)
            self.training.train(self.collector.set, parent, preset, name)
        self._acted()

    def onResume(self) -> None:
        if self._install():
            self.training.resume()
        self._acted()

    def onDiscard(self) -> None:
        self.training.discard()
        self.update()

    def onUseModel(self) -> None:
        if self.training.use():
            self.ui.modelNameEdit.text = ""
            self._used()
        self.update()

    def onNextPicture(self) -> None:
        self._picture += 1
        self._drawOutcome()

    def _acted(self) -> None:
        """Show at once what a click did, and look soon at what it began."""
        self.update()
        self._timer.start(BUSY_MS)

    def _here(self, spinBox) -> None:
        spinBox.value = self.case.current_slice()

    def source(self) -> CaseSource:
        """Of the case; the same as long as its voxels are, since finding its name takes a look at them all."""
        known = (self.case, self.case.key)
        if self._source[:2] != known:
            self._source = (*known, CaseSource(self.case))
        return self._source[2]

    # What happens by itself

    def onTimer(self) -> None:
        """Give collector and training their turn, and show what came of it."""
        was = self.training.busy
        self.collector.tick()
        self.training.tick()
        if self._suggesting and not self.collector.busy:
            self._suggesting = False
            if self.case:
                self._segmentTab.session.suggest(self.case, self.collector.labelled(self.source()))
        if was != self.training.busy or time.monotonic() - self._updated > REDRAW_SECONDS:
            self.update()
        elif self._unpictured:
            self._drawThumbnail()
        busy = self.collector.busy or self.training.busy or self._unpictured or self._segmentTab.session.correcting
        self._timer.start(BUSY_MS if busy else IDLE_MS)

    def update(self) -> None:
        """Bring the tab into line with collector and training."""
        self._updated = time.monotonic()
        session = self._segmentTab.session
        if self.case is None:
            self._source = ()
        if self._suggestion != session.suggested:
            self._suggestion = session.suggested
            if self._suggestion and self.case and self._suggestion[0] == self.case.key:
                self.case.jump(self._suggestion[1])
        after = look(self.collector, self.training, session, self.case)
        for name, properties in changes(self._look, after).items():
            for key, value in properties.items():
                setattr(getattr(self.ui, name), key, value)
        self._look = after
        if self._listed != self.collector.changes:
            self._listed = self.collector.changes
            self._list()
        drawn = (len(self.training.figures), self.training.outcome)
        if self._drawn != drawn:
            if self.training.figures:
                self.ui.curvesLabel.setPixmap(curves(self.training.figures, *CURVES))
            if self._drawn[1] is not drawn[1]:
                self._picture = 0
                self._drawOutcome()
            self._drawn = drawn

    def _list(self) -> None:
        """Fill selector and table; thumbnails follow one by one."""
        folders = [(str(folder), folder.name) for folder in self.collector.folders()]
        if self.collector.set is None:
            return
        fill(self.ui.setSelector, folders, str(self.collector.set.folder))
        table, structure = self.ui.slicesTable, self.collector.set.structure.name
        self._filling, self._items = True, []
        table.setSortingEnabled(False)
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.setRowCount(len(self.collector.entries))
        for row, entry in enumerate(self.collector.entries):
            tick = qt.QTableWidgetItem()
            tick.setCheckState(qt.Qt.Checked if entry.active else qt.Qt.Unchecked)
            tick.setData(qt.Qt.UserRole, row)
            number = qt.QTableWidgetItem()
            number.setData(qt.Qt.DisplayRole, entry.slice)
            self._items.append(tick)
            table.setItem(row, PICTURE, tick)
            table.setItem(row, SCAN, qt.QTableWidgetItem(entry.provenance.get("volume", entry.patient)))
            table.setItem(row, SLICE, number)
            table.setItem(row, KIND, qt.QTableWidgetItem(kind(entry, structure)))
        table.setColumnWidth(PICTURE, 76)
        table.setSortingEnabled(True)
        self._filling = False
        self._unpictured = list(range(len(self.collector.entries)))
        self._timer.start(BUSY_MS)

    def _drawThumbnail(self) -> None:
        index = self._unpictured.pop(0)
        picture = self.collector.thumbnail(self.collector.entries[index])
        if picture is None:
            return
        self._filling = True
        self._items[index].setIcon(qt.QIcon(pixmap(picture)))
        self._filling = False

    def _drawOutcome(self) -> None:
        """One held-out slice with what the model before and the new one make of it."""
        outcome = self.training.outcome
        if outcome is None:
            return
        n = self._picture % len(outcome.held_out)
        try:
            with np.load(outcome.pictures, allow_pickle=False) as arrays:
                image, reference, before, after = (arrays[key][n] for key in ("images", "reference", "before", "after"))
        except (OSError, KeyError, ValueError, IndexError):
            self.ui.pictureLabel.text = "The pictures of this training cannot be read."
            return
        for label, mask, color in ((self.ui.beforeLabel, before, BEFORE), (self.ui.afterLabel, after, AFTER)):
            label.setPixmap(pixmap(slice_picture(image, [(reference, REFERENCE), (mask, color)], HELD_OUT)))
            label.setMinimumHeight(HELD_OUT)
        patient, k = outcome.held_out[n]
        self.ui.pictureLabel.text = f"Slice {k} of {patient}: yours green, before orange, now blue"


def _chosen(selector) -> str:
    return selector.itemData(selector.currentIndex)
