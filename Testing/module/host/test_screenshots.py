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
    volume = clinic.load(scan)
    click(clinic.ui.segmentButton)
    clinic.wait(lambda: clinic.session.state is State.RUNNING and clinic.session.stage()[1] > 2, 300)
    clinic.desktop.screenshot(pictures / "module_running.jpg")
    clinic.wait(lambda: not clinic.session.busy, 300)
    assert not clinic.session.error

    case = clinic.tab.case
    case.jump(int(np.argmax(case.areas())))
    case.segmentationNode.CreateClosedSurfaceRepresentation()
    clinic.desktop.screenshot(pictures / "module_result.jpg")
    clinic.ui.overlaysButton.collapsed, clinic.ui.correctButton.collapsed = True, False
    clinic.ui.heatMapCheckBox.checked = False
    clinic.ui.editBoxButton.checked = True
    clinic.desktop.screenshot(pictures / "module_correct.jpg")
    clinic.ui.overlaysButton.collapsed, clinic.ui.correctButton.collapsed = False, True
    clinic.ui.tabs.currentIndex = 2
    clinic.desktop.screenshot(pictures / "module_models.jpg")
    clinic.ui.tabs.currentIndex = 0
    clinic.ui.heatMapCheckBox.checked = True
    clinic.ui.editBoxButton.checked = False

    running, result, correct = (pixels(pictures / f"module_{name}.jpg") for name in ("running", "result", "correct"))
    view = (slice(20, 440), slice(450, 840))  # the red slice view
    yellow = [int(((each[view] - (255, 217, 0)).__abs__().sum(axis=2) < 90).sum()) for each in (running, result)]
    assert yellow[0] == 0 and yellow[1] > 100  # the box
    assert np.abs(result[view] - correct[view]).sum(axis=2).max() > 100  # heat map off, handles on
    assert all((pictures / f"module_{name}.jpg").stat().st_size < MAX_BYTES
               for name in ("running", "result", "correct", "models"))  # fmt: skip
    assert volume.GetScene()
