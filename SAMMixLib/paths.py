"""Where models, training sets and trainings live on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

STARTER = "starter"
"""The name of the model that travels with the library."""


def home_folder() -> Path:
    """``$SAMMIX_HOME``, else ``SAMMix`` in the platform's place for application data."""
    if "SAMMIX_HOME" in os.environ:
        return Path(os.environ["SAMMIX_HOME"])
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
    return base / "SAMMix"


def models_folder() -> Path:
    """The user's model bundles, a folder each."""
    return home_folder() / "models"


def training_sets_folder() -> Path:
    """The user's training sets, a folder each."""
    return home_folder() / "training_sets"


def trainings_folder() -> Path:
    """Trainings of the module, a folder each, until their model is used."""
    return home_folder() / "trainings"


def starter_folder() -> Path:
    """The starter bundle, which travels with the library."""
    return Path(__file__).resolve().parent / "models" / STARTER
