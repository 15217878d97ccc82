"""One callback type for everything that takes more than a second."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``. It may raise :class:`SAMMixLib.errors.Cancelled` to stop the work."""


def silent(stage: str, done: int, total: int) -> None:
    """The progress callback of a caller who does not watch."""


def after(done_before: int, progress: Progress) -> Progress:
    """`progress` for the next part of a stage, of which `done_before` pieces are done already."""
    return lambda stage, done, total: progress(stage, done_before + done, done_before + total)
