"""Fixtures for the library's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CT, which is not part of the project: ``$SAMMIX_DATA`` or ``../shared/data``."""
    folder = Path(os.environ.get("SAMMIX_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT is not here: {folder} (set SAMMIX_DATA)")
    return folder
