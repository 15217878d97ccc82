"""What came of a training: its curves, and slices that were held out with what both models make of them."""

from __future__ import annotations

import numpy as np

from SAMMixLib.module import texts
from SAMMixLib.module.session.pictures import slice_picture
from SAMMixLib.module.session.training import Training
from SAMMixLib.module.widgets.pictures import curves, pixmap
from SAMMixLib.worker.protocol import Trained

CURVES = (340, 120)  # pixels
HELD_OUT = 180  # pixels of a held-out slice
REFERENCE, BEFORE, AFTER = (90, 220, 90), (255, 170, 40), (80, 170, 255)


class OutcomePictures:
    """Draws into the labels of the tab Train."""

    def __init__(self, ui):
        self.ui = ui
        self._drawn = (-1, None)  # figures and outcome that are drawn
        self._picture = 0  # which held-out slice
        ui.curvesLabel.setMinimumHeight(CURVES[1])
        ui.nextPictureButton.connect("clicked()", self.onNextPicture)

    def update(self, training: Training) -> None:
        before, now = self._drawn, (len(training.figures), training.outcome)
        if before == now:
            return
        self._drawn = now
        if training.figures:
            self.ui.curvesLabel.setPixmap(curves(training.figures, *CURVES))
        if before[1] is not training.outcome:
            self._picture = 0
            self._draw()

    def onNextPicture(self) -> None:
        self._picture += 1
        self._draw()

    def _draw(self) -> None:
        """One held-out slice with what the model before and the new one make of it."""
        outcome: Trained | None = self._drawn[1]
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
        self.ui.pictureLabel.text = f"Slice {k} of {texts.scan_name(patient)}: your mask is green"
