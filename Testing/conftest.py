"""Leaves out the rooms whose packages are missing on this machine, and says so; where the real data is."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

ROOMS = {  # what a room cannot do without; PySide6.QtWidgets fails to load where libEGL is missing
    "module/scene": ("slicer",),
    "module/host": ("slicer", "PySide6.QtWidgets"),
}


def _obstacle(room: str) -> str | None:
    if room == "module/host" and sys.version_info < (3, 12):
        return "its stand-in for PythonQt needs Python 3.12"
    for package in ROOMS[room]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            return str(error)
    return None


left_out = {room: obstacle for room in ROOMS if (obstacle := _obstacle(room))}
collect_ignore = list(left_out)


def pytest_report_header() -> list[str]:
    return [f"left out: Testing/{room}: {obstacle}" for room, obstacle in left_out.items()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real CT, and what clicks through the module; ``slow`` stands at the tests themselves."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
        if item.path.is_relative_to(REPOSITORY / "Testing" / "module" / "host"):
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT, which is not part of the project: ``$SAMMIX_DATA`` or ``../shared/data``."""
    folder = Path(os.environ.get("SAMMIX_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT is not here: {folder} (set SAMMIX_DATA)")
    return folder
