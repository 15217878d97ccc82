"""What a user reads when something at the desk went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable

from SAMMixLib.errors import SAMMixError


def attempt(action: Callable[[], object], place: str) -> str:
    """Do it; gives back the one line that the user sees, empty where nothing was raised.

    ``place`` stands for a file that an error of the system does not name.
    """
    try:
        action()
    except SAMMixError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror or error}: {error.filename or place}"
    except Exception as error:
        logging.exception("SAMMix")
        return f"Unexpected: {error}. The Python console says more."
    return ""
