"""The manual's pictures, made of the phantom: ``SAMMIX_SCREENSHOTS=Resources/screenshots`` writes them there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PySide6.QtGui import QImage
from slicerhost.desktop import click

from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.module.session.session import State

MAX_BYTES = 300_000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    wanted = os.environ.get("SAMMIX_SCREENSHOTS")
    return Path(wanted).resolve() if wanted else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """The phantom, small unless the pictures are for the manual."""
    size = (256, 256, 64) if "SAMMIX_SCREENSHOTS" in os.environ else (128, 128, 16)
    path = tmp_path_factory.mktemp("phantom") / "LiverPhantom.nrrd"
    sitk.WriteImage(make_phantom(size=size).ct, str(path))
    return path


def pixels(path: Path) -> np.ndarray:
    """int [rows, columns, 3]."""
    image = QImage(str(path)).convertToFormat(QImage.Format_RGB888)
    rows, columns, stride = QImage.height(image), QImage.width(image), QImage.bytesPerLine(image)
    return np.frombuffer(image.constBits(), np.uint8).reshape(rows, stride)[:, : 3 * columns].reshape(
        rows, columns, 3
    ).astype(int)  # fmt: skip


def test_pictures_of_a_run(clinic, scan, pictures):
    """What the product shows by itself: nothing is made here but clicks."""
    ui = clinic.ui
    clinic.desktop.window.resize(1240, 900)
    clinic.load(scan)
    click(ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING and clinic.session.stage()[1] > 2, 300)
    clinic.desktop.screenshot(pictures / "module_running.jpg")
    clinic.wait(lambda: not clinic.session.busy, 300)
    assert not clinic.session.error
    clinic.wait(lambda: not clinic.tab.drawing3D, 60)
    click(ui.windowButton)
    clinic.desktop.screenshot(pictures / "module_result.jpg")
    ui.tabs.currentIndex = 1
    click(ui.editBoxButton)
    clinic.desktop.screenshot(pictures / "module_correct.jpg")
    ui.tabs.currentIndex = 3
    clinic.desktop.screenshot(pictures / "module_models.jpg")
    ui.tabs.currentIndex = 0

    running, result, correct = (pixels(pictures / f"module_{name}.jpg") for name in ("running", "result", "correct"))
    view = (slice(20, 440), slice(450, 840))  # the red slice view
    yellow, outline = (
        [int(((each[view] - color).__abs__().sum(axis=2) < 90).sum()) for each in (running, result, correct)]
        for color in ((255, 217, 0), (51, 230, 217))
    )
    assert yellow[0] == 0 and min(yellow[1:]) > 100  # the box
    assert outline[0] == 0 and min(outline[1:]) > 100  # of the segment, through the heat map
    assert np.abs(result[view] - correct[view]).sum(axis=2).max() > 100  # heat map off, handles on
    assert all((pictures / f"module_{name}.jpg").stat().st_size < MAX_BYTES
               for name in ("running", "result", "correct", "models"))  # fmt: skip
