"""The module's real widget on a real scene with the real worker; skipped where slicer-core or PySide6 is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

for package in ("slicer", "PySide6"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install slicer-core PySide6-Essentials)")

import SimpleITK as sitk  # noqa: E402
import slicer  # noqa: E402
from slicerhost.desktop import Desktop, Gap, click  # noqa: E402
from slicerhost.launcher import choose_worker  # noqa: E402

from SAMMixLib.data.phantom import make_phantom  # noqa: E402
from SAMMixLib.module.scene.segments import findSegment  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = REPOSITORY / "SAMMix" / "SAMMix.py"


class Clinic:
    """One desk with the module open, and what a user does there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.desktop = Desktop(folder)
        self.widget = self.desktop.load_module(MODULE)
        self.desktop.show(self.widget)

    @property
    def ui(self):
        return self.widget.ui

    @property
    def tab(self):
        return self.widget.desk

    @property
    def session(self):
        return self.tab.session

    @property
    def findings(self):
        return self.session.findings(self.tab.case)

    @property
    def view(self):
        return slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()

    def paint(self, k: int) -> None:
        """What the Segment Editor's Paint does: a square in the corner of slice k."""
        case = self.tab.case
        array = self.liver().copy()
        array[k, :5, :5] = 1
        liver = findSegment(case.segmentationNode)
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, case.segmentationNode, liver, case.volumeNode)

    def load(self, path: Path):
        """Load a file as the application's reader does; the module chooses it by itself."""
        volume = slicer.util.loadVolume(str(path))
        self.wait(lambda: self.tab.case is not None and self.tab.case.volumeNode is volume, 5)
        return volume

    def reload(self, folder: Path) -> None:
        """Save the scene with its segmentations into a folder, close it, and load it again."""
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            slicer.util.saveNode(node, str(folder / f"{node.GetName()}.seg.nrrd"))
        slicer.mrmlScene.SetURL(str(folder / "scene.mrml"))
        assert slicer.mrmlScene.Commit()
        self.clear()
        slicer.util.loadNodeFromFile(str(folder / "scene.mrml"), "SceneFile", {})

    def segment(self, seconds: float = 120.0) -> Gap:
        """Press the button and wait; gives back the longest gap between two events."""
        click(self.ui.segmentButton)
        return self.wait(lambda: not self.session.busy, seconds)

    def wait(self, condition, seconds: float = 60.0) -> Gap:
        return self.desktop.wait(condition, seconds)

    def liver(self) -> np.ndarray:
        """The liver segment on the volume's array."""
        from SAMMixLib.module.scene.segments import readSegment

        return readSegment(self.tab.case.segmentationNode, self.tab.case.volumeNode)

    def reopen(self) -> None:
        """Close the module, as unloading or reloading does, and open it again."""
        self.desktop.unload_module(self.widget)
        self.widget = self.desktop.load_module(MODULE)
        self.desktop.show(self.widget)

    def clear(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.desktop.dialogs.clear()
        self.desktop.log.lines.clear()
        self.desktop.answer = True


@pytest.fixture(scope="session")
def desk(tmp_path_factory):
    os.environ["SAMMIX_HOME"] = str(tmp_path_factory.mktemp("models"))
    clinic = Clinic(tmp_path_factory.mktemp("desk"))
    yield clinic
    clinic.desktop.unload_module(clinic.widget)


@pytest.fixture
def clinic(desk) -> Iterator[Clinic]:
    """The desk with an empty scene and the quick worker, which stays warm from test to test; the log stays empty.

    The manual's pictures show the real one.
    """
    if choose_worker(quick="SAMMIX_SCREENSHOTS" not in os.environ):
        desk.session.unload()
    desk.clear()
    yield desk
    assert not desk.desktop.log.lines, "\n".join(desk.desktop.log.lines)


@pytest.fixture
def model(clinic) -> None:
    """The real worker with the real model."""
    if choose_worker(quick=False):
        clinic.session.unload()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A small phantom's file, and its liver on the same array."""
    drawn = make_phantom(size=(128, 128, 16))
    path = tmp_path_factory.mktemp("phantom") / "phantom.nrrd"
    sitk.WriteImage(drawn.ct, str(path))
    return path, sitk.GetArrayFromImage(drawn.liver)


@pytest.fixture(scope="session")
def by_command_line(tmp_path_factory):
    """The mask that ``sammix segment`` writes for a file."""

    def segment(path: Path) -> np.ndarray:
        output = tmp_path_factory.mktemp("cli") / "mask.nrrd"
        subprocess.run(
            [sys.executable, "-m", "SAMMixLib", "segment", str(path), "-o", str(output)], check=True, cwd=REPOSITORY
        )
        return sitk.GetArrayFromImage(sitk.ReadImage(str(output)))

    return segment
