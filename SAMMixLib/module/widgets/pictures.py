"""Pixmaps of slices, and of a training's curves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import qt

from SAMMixLib.module import texts
from SAMMixLib.module.session.pictures import ppm

LOSS, DICE = "#de8266", "#1f78b5"
MARGIN = 22  # pixels, for the figures at the axes


def pixmap(picture: np.ndarray):
    """Of uint8 [rows, columns, 3]."""
    drawn = qt.QPixmap()
    drawn.loadFromData(qt.QByteArray(ppm(picture)))
    return drawn


def curves(figures: list[dict[str, float]], width: int, height: int):
    """Loss, as a share of its largest, and validation Dice against the step."""
    drawn = qt.QPixmap(width, height)
    drawn.fill(qt.QColor("white"))
    painter = qt.QPainter()
    painter.begin(drawn)
    right, bottom = width - MARGIN, height - MARGIN
    painter.setPen(qt.QColor("#888888"))
    painter.drawLine(MARGIN, bottom, right, bottom)
    painter.drawLine(MARGIN, MARGIN, MARGIN, bottom)
    painter.drawText(4, MARGIN + 4, "1")
    painter.drawText(4, bottom + 4, "0")
    painter.drawText(right - 50, height - 6, f"{figures[-1]['steps']} steps")
    largest = max((each["loss"] for each in figures if "loss" in each), default=1.0) or 1.0
    kinds = (("loss", "error", LOSS, largest), ("validation_dice", "Dice, kept aside", DICE, 1.0))
    for column, (name, words, color, scale) in enumerate(kinds):
        points = [(each["step"] / each["steps"], each[name] / scale) for each in figures if name in each]
        if not points:
            continue
        at = [(round(MARGIN + x * (right - MARGIN)), round(bottom - y * (bottom - MARGIN))) for x, y in points]
        pen = qt.QPen(qt.QColor(color))
        pen.setWidth(2)
        painter.setPen(pen)
        for (x, y), (next_x, next_y) in pairwise(at):
            painter.drawLine(x, y, next_x, next_y)
        painter.drawRect(at[-1][0] - 2, at[-1][1] - 2, 4, 4)
        painter.drawText(MARGIN + 6 + 150 * column, 14, f"{words} {texts.dice(points[-1][1] * scale)}")
    painter.end()
    return drawn
