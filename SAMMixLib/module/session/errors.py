"""What a user reads when something at the desk went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable

from SAMMixLib.errors import SAMMixError


def one_line(error: Exception, place: str) -> str:
    """The line that the user sees; ``place`` stands for a file that an error of the system does not name."""
    if isinstance(error, SAMMixError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or place}"
    logging.error("SAMMix", exc_info=error)
    return f"Unexpected: {error}. The Python console says more."


def attempt(action: Callable[[], object], place: str) -> str:
    """Do it; gives back the one line that the user sees, empty where nothing was raised."""
    try:
        action()
    except Exception as error:
        return one_line(error, place)
    return ""
