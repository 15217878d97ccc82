"""The one place where HU become the model's input."""

from __future__ import annotations

from typing import Any


def window(hu: Any, width: float, level: float) -> Any:
    """HU (a float array or tensor) to 0..1: the window of `width` around `level`, clipped; never the display window."""
    return ((hu - (level - width / 2)) / width).clip(0.0, 1.0)
