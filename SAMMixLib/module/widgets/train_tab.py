"""The tab Train: collect slices, train a model on them, and see what it is worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import qt

from SAMMixLib.data.training_set import CARD, Entry
from SAMMixLib.module import texts
from SAMMixLib.module.scene.collect import CaseSource
from SAMMixLib.module.scene.segments import makeSegment
from SAMMixLib.module.session.collecting import Collector
from SAMMixLib.module.session.train_view import look
from SAMMixLib.module.session.training import PRESETS, Training, new_name
from SAMMixLib.module.widgets.desk import Desk
from SAMMixLib.module.widgets.dress import Dress, chosen, fill
from SAMMixLib.module.widgets.outcome import OutcomePictures
from SAMMixLib.module.widgets.slices_table import SlicesTable
from SAMMixLib.structure import KNOWN, structure_named

BUSY_MS, IDLE_MS = 20, 500
REDRAW_SECONDS = 0.3


class TrainTab:
    """Wires the widgets of the tab.

    Args:
        ui: the panel's widgets as attributes.
        desk: whose volume and segmentation slices are collected from.
        install: asks for, and installs, what training needs; whether it is there then.
    """

    def __init__(self, ui, desk: Desk, collector: Collector, training: Training, install: Callable[[], bool]):
        self.ui, self.desk, self.collector, self.training, self._install = ui, desk, collector, training, install
        self._dress = Dress(ui)
        self._table = SlicesTable(ui.slicesTable, collector, self.onOpened)
        self._outcome = OutcomePictures(ui)
        self._updated = 0.0
        self._sets: tuple = ()  # that the selector offers
        self._suggesting, self._suggestion = False, None
        self._source: tuple = ()
        self._case = None  # that the last message was of
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self.onTimer)
        for button, slot in (
            (ui.useSliceButton, self.onUseSlice),
            (ui.useEditedButton, self.onUseEdited),
            (ui.emptySliceButton, self.onEmptySlice),
            (ui.makeSegmentButton, self.onMakeSegment),
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
        ):
            button.connect("clicked()", slot)
        ui.newSetButton.connect("toggled(bool)", self.onNewSet)
        ui.setSelector.connect("activated(int)", self.onSet)
        ui.newSetFrame.visible = False
        fill(ui.structureSelector, [(structure.name, structure.name) for structure in KNOWN], KNOWN[0].name)
        fill(ui.presetSelector, list(PRESETS.items()), next(iter(PRESETS)))
        desk.listen(self.update)

    # Life cycle

    def enter(self) -> None:
        self._timer.start(IDLE_MS)

    def close(self) -> None:
        self._timer.stop()
        self.training.close()

    # What the user does

    @property
    def case(self):
        return self.desk.case

    def onUseSlice(self) -> None:
        if (k := self.desk.slice) is not None:
            self.collector.take(self.source(), [k], "accepted")
        self._acted()

    def onUseEdited(self) -> None:
        edited = self.source().edited(self.collector.structure)
        if edited:
            self.collector.take(self.source(), edited, "edited")
        else:
            self.collector.message = "No slice is edited: all are as the model left them."
        self._acted()

    def onEmptySlice(self) -> None:
        """Label the slice as one without the structure; the user is asked where the segment shows it."""
        if (k := self.desk.slice) is None:
            return
        source, structure = self.source(), self.collector.structure
        self.collector.dismiss()
        drawn = k in source.drawn(structure)
        if not drawn or self.desk.choose(texts.empty_question(k, structure.name)) == texts.LABEL_EMPTY:
            self.collector.exclude(source, k)
        self._acted()

    def onMakeSegment(self) -> None:
        """An empty segment of the structure, and the place to draw it."""
        if (case := self.case) is None:
            return
        segmentation, segmentId = makeSegment(case.volumeNode, case.segmentationNode, self.collector.structure)
        self.desk.useSegmentation(segmentation)
        self.ui.segmentEditor.setCurrentSegmentID(segmentId)
        self.ui.tabs.currentIndex = self.ui.tabs.indexOf(self.ui.correctTab)

    def onRange(self) -> None:
        """Label the range, and the rest if that is wanted; the user is asked where the segment speaks against it."""
        ui, source, structure = self.ui, self.source(), self.collector.structure
        first, last = sorted((ui.fromSpinBox.value, ui.toSpinBox.value))
        rest, drawn = ui.restCheckBox.checked, source.drawn(structure)
        bare = [k for k in range(first, last + 1) if k not in drawn] if drawn else []
        leaveOut: list[int] = []
        for ks, shown in ((bare, False), ([k for k in drawn if rest and not first <= k <= last], True)):
            answer = self.desk.choose(texts.range_question(ks, structure.name, shown=shown)) if ks else texts.LABEL
            if answer == texts.CANCEL:
                return
            leaveOut += ks if answer == texts.LEAVE_OUT else []
        self.collector.label(source, first, last, rest=rest, leave_out=leaveOut)
        self._acted()

    def onSuggest(self) -> None:
        self.collector.message, self.desk.session.suggested = "", None
        self.collector.identify(self.source())
        self._suggesting = True
        self._acted()

    def onSet(self, index: int) -> None:
        self.collector.open(Path(self.ui.setSelector.itemData(index)))
        self.update()

    def onNewSet(self, on: bool) -> None:
        self.ui.newSetFrame.visible = on

    def onCreateSet(self) -> None:
        self.collector.create(self.ui.setNameEdit.text, structure_named(chosen(self.ui.structureSelector)))
        if not self.collector.error:
            self.ui.newSetButton.checked = False
            self.ui.setNameEdit.text = ""
        self.update()

    def onOpenSet(self) -> None:
        path = qt.QFileDialog.getOpenFileName(None, "Open a training set", "", f"Training sets ({CARD} *.zip)")
        if path:
            file = Path(path)
            self.collector.open(file.parent) if file.name == CARD else self.collector.import_(file)
            self._acted()

    def onExportSet(self) -> None:
        if self.collector.set is None:
            return
        name = f"{self.collector.set.name}.zip"
        path = qt.QFileDialog.getSaveFileName(None, "Export the training set", name, "Zip files (*.zip)")
        if path:
            self.collector.export(Path(path))
            self._acted()

    def onOpened(self, entry: Entry) -> None:
        if self.case and self.source().name == entry.provenance.get("volume"):
            self.case.jump(entry.slice)

    def onTrain(self) -> None:
        if self.training.busy:
            self.training.stop()
        elif (target := self.collector.set) is not None and self._install():
            name = self.ui.modelNameEdit.text.strip() or new_name(target.structure.name)
            self.ui.modelNameEdit.text = name
            parent, preset = chosen(self.ui.parentSelector), chosen(self.ui.presetSelector)
            self.collector.dismiss()  # what was taken is old news now
            self.training.train(target, parent, preset, name)
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
        self.desk.update()

    def _acted(self) -> None:
        """Show at once what a click did, and look soon at what it began; what went wrong before is said no more."""
        self.desk.session.dismiss()
        self.desk.update()
        self._timer.start(BUSY_MS)

    def _here(self, spinBox) -> None:
        if (k := self.desk.slice) is not None:
            spinBox.value = k

    def source(self) -> CaseSource:
        """Of the case; the same as long as its voxels are, since finding its name takes a look at them all."""
        assert self.case is not None
        known = (self.case, self.case.scan)
        if self._source[:2] != known:
            self._source = (*known, CaseSource(self.case))
        return self._source[2]

    # What happens by itself

    def onTimer(self) -> None:
        """Give collector and training their turn, and show what came of it."""
        was = self.training.busy, self.collector.busy
        self.collector.tick()
        self.training.tick()
        if self._suggesting and not self.collector.busy:
            self._suggesting = False
            if self.case:
                self.desk.session.suggest(self.case, self.collector.labelled(self.source()))
        now = self.training.busy, self.collector.busy
        if was != now or time.monotonic() - self._updated > REDRAW_SECONDS:
            self.update()
        elif self._table.behind:
            self._table.update()
        busy = self.collector.busy or self.training.busy or self._table.behind or self.desk.session.correcting
        self._timer.start(BUSY_MS if busy else IDLE_MS)

    def update(self) -> None:
        """Bring the tab into line with collector and training."""
        self._updated = time.monotonic()
        session = self.desk.session
        if self.case is None:
            self._source = ()
        elif self.case is not self._case:
            self._case = self.case
            self.ui.fromSpinBox.value = self.ui.toSpinBox.value = 0  # the range was the last scan's
            self.ui.restCheckBox.checked = False
            if not self.collector.busy:
                self.collector.dismiss()
        if self._suggestion != session.suggested:
            self._suggestion = session.suggested
            if self._suggestion and self.case and self._suggestion[0] == self.case.key:
                self.case.jump(self._suggestion[1])
        self._dress.wear(look(self.collector, self.training, session, self.case, seeking=self._suggesting))
        if self._table.behind:
            self._table.update()
            self._timer.start(BUSY_MS)
        self._outcome.update(self.training)
        self._listSets()

    def _listSets(self) -> None:
        """Offer the training sets that are there."""
        offered = (self.collector.set, self.collector.changes)
        if self.collector.set is not None and self._sets != offered:
            self._sets = offered
            folders = [(str(folder), folder.name) for folder in self.collector.folders()]
            fill(self.ui.setSelector, folders, str(self.collector.set.folder))
