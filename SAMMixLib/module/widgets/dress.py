"""Puts what a presenter says into the panel's widgets."""

from __future__ import annotations

from SAMMixLib.module.session.segment_view import Look, changes


class Dress:
    """Writes looks into widgets; of each one only what has changed since the last."""

    def __init__(self, ui):
        self._ui = ui
        self._worn: Look = {}

    def wear(self, look: Look) -> None:
        for name, properties in changes(self._worn, look).items():
            for key, value in properties.items():
                setattr(getattr(self._ui, name), key, value)
        self._worn = look


def fill(selector, choices: list[tuple[str, str]], current: str) -> None:
    """Offer choices of (value, text) in a combo box."""
    selector.clear()
    for value, text in choices:
        selector.addItem(text, value)
    selector.currentIndex = max(0, selector.findData(current))


def chosen(selector) -> str:
    """The value of the choice."""
    return selector.itemData(selector.currentIndex)
