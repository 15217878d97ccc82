"""How tall the tabs are."""

from __future__ import annotations

import qt


class TabHeights:
    """Gives each tab the height of its own content, wrapped lines of text included.

    By themselves all tabs of a ``QTabWidget`` are as tall as the tallest, and text that needs one more line at the
    panel's width than Qt has guessed lies over what is below it.
    """

    def __init__(self, tabs):
        self._tabs = tabs
        tabs.connect("currentChanged(int)", self.fit)
        self.fit()

    def fit(self, *_) -> None:
        """Measure the open tab anew; the others take no height at all."""
        for index in range(self._tabs.count):
            page, here = self._tabs.widget(index), index == self._tabs.currentIndex
            policy = qt.QSizePolicy.Preferred if here else qt.QSizePolicy.Ignored
            page.setSizePolicy(qt.QSizePolicy.Preferred, policy)
            page.minimumHeight = max(0, page.heightForWidth(page.width)) if here else 0
