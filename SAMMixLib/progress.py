"""One callback type for everything that takes more than a second."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``. It may raise :class:`SAMMixLib.errors.Cancelled` to stop the work."""


def silent(stage: str, done: int, total: int) -> None:
    """The progress callback of a caller who does not watch."""
