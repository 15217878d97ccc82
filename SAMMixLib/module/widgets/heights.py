"""How tall the tabs are."""

from __future__ import annotations

import qt


class TabHeights:
    """Gives each tab the height of its own content, wrapped lines of text included, or all the room that the module's
    widget has where that is more.

    By themselves all tabs of a ``QTabWidget`` are as tall as the tallest, and text that needs one more line at the
    panel's width than Qt has guessed lies over what is below it.
    """

    def __init__(self, tabs, moduleWidget):
        self._tabs, self._moduleWidget = tabs, moduleWidget
        tabs.connect("currentChanged(int)", self.fit)
        self.fit()

    def fit(self, *_) -> None:
        """Measure the open tab anew."""
        pages = [self._tabs.widget(index) for index in range(self._tabs.count)]
        heights = [max(0, page.heightForWidth(page.width)) for page in pages]
        around = max(0, self._tabs.heightForWidth(self._tabs.width) - max(heights))  # the bar and the frame
        self._tabs.setFixedHeight(max(around + heights[self._tabs.currentIndex], self._room()))

    def _room(self) -> int:
        """From the tabs' upper edge to the lower one of what is to see of the module's widget, pixels."""
        widget = self._moduleWidget
        above = self._tabs.mapTo(widget, qt.QPoint(0, 0)).y()
        below = widget.height - 1 - widget.layout().contentsRect().bottom()  # its margin
        return widget.visibleRegion().boundingRect().height() - above - below
