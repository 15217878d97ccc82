"""Arrays on disk: a half-written file never looks like a whole one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a compressed .npz file beside, then rename it."""
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(beside, path)
