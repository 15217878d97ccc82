"""The list of a training set's slices: ticks, thumbnails, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable

import qt

from SAMMixLib.data.training_set import Entry
from SAMMixLib.module import texts
from SAMMixLib.module.session.collecting import Collector, kind
from SAMMixLib.module.widgets.pictures import pixmap

COLUMNS = ("", "Scan", "Slice", "Kind")
PICTURE, SCAN, SLICE, KIND = range(4)
ROW = 44  # pixels of a row


class SlicesTable:
    """Shows a collector's entries, those with a mask first, and tells it what the user ticks.

    Args:
        open: called with the entry that was double-clicked.
    """

    def __init__(self, table, collector: Collector, open: Callable[[Entry], None]):
        self.table, self.collector, self._open = table, collector, open
        self._listed = -1  # the collector's changes that the list shows
        self._items: list = []  # of the first column, one for each entry
        self._unpictured: list[int] = []  # entries without their thumbnail yet
        self._filling = False
        table.connect("cellChanged(int,int)", self.onTicked)
        table.connect("cellDoubleClicked(int,int)", self.onDoubleClicked)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW)
        table.setIconSize(qt.QSize(ROW - 4, ROW - 4))
        table.horizontalHeader().setStretchLastSection(True)

    @property
    def behind(self) -> bool:
        """Whether there is something left to list or to draw."""
        return self._listed != self.collector.changes or bool(self._unpictured)

    def update(self) -> None:
        """List what is new, or draw one thumbnail more."""
        if self._listed != self.collector.changes:
            self._listed = self.collector.changes
            self._list()
        elif self._unpictured:
            self._drawThumbnail(self._unpictured.pop(0))

    def onTicked(self, row: int, column: int) -> None:
        """Tick or untick the slice, and with it all that are selected if it is one of them."""
        if self._filling or column != PICTURE:
            return
        state = self.table.item(row, PICTURE).checkState()
        selected = {index.row() for index in self.table.selectionModel().selectedRows()}
        items = [self.table.item(each, PICTURE) for each in (selected if row in selected else {row})]
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

    def onDoubleClicked(self, row: int, column: int) -> None:
        self._open(self.collector.entries[self.table.item(row, PICTURE).data(qt.Qt.UserRole)])

    def _list(self) -> None:
        """Fill the table; thumbnails follow one by one."""
        entries = self.collector.entries
        order = sorted(range(len(entries)), key=lambda n: not entries[n].has_mask)
        self._filling, self._items = True, [None] * len(entries)
        self.table.setSortingEnabled(False)
        self.table.setColumnCount(len(COLUMNS))
        self.table.setHorizontalHeaderLabels(list(COLUMNS))
        self.table.horizontalHeader().setSortIndicator(-1, qt.Qt.AscendingOrder)
        self.table.setRowCount(len(entries))
        for row, n in enumerate(order):
            self._fill(row, n, entries[n])
        self.table.setColumnWidth(PICTURE, 76)
        self.table.setSortingEnabled(True)
        self._filling, self._unpictured = False, order

    def _fill(self, row: int, n: int, entry: Entry) -> None:
        tick, number = qt.QTableWidgetItem(), qt.QTableWidgetItem()
        tick.setCheckState(qt.Qt.Checked if entry.active else qt.Qt.Unchecked)
        tick.setData(qt.Qt.UserRole, n)
        number.setData(qt.Qt.DisplayRole, entry.slice)
        self._items[n] = tick
        scan = entry.provenance.get("volume") or texts.scan_name(entry.patient)
        what = kind(entry, self.collector.structure.name)
        for column, item in (
            (PICTURE, tick),
            (SCAN, qt.QTableWidgetItem(scan)),
            (SLICE, number),
            (KIND, qt.QTableWidgetItem(what)),
        ):
            self.table.setItem(row, column, item)

    def _drawThumbnail(self, n: int) -> None:
        picture = self.collector.thumbnail(self.collector.entries[n])
        if picture is not None:
            self._filling = True
            self._items[n].setIcon(qt.QIcon(pixmap(picture)))
            self._filling = False
