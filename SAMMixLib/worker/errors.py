"""What went wrong in a request, in one line for the user."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.device import out_of_memory
from SAMMixLib.worker.protocol import ErrorKind

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def explain(error: BaseException, folder: Path) -> tuple[ErrorKind, str]:
    """Kind and text; `folder` is where the files go."""
    reason = error.__cause__ if isinstance(error, SAMMixError) and error.__cause__ else error
    if out_of_memory(reason):
        text = "Not enough memory for this scan; close other programs, or choose a smaller model."
        return ErrorKind.MEMORY, text
    if isinstance(reason, OSError) and reason.errno in DISK:
        free = shutil.disk_usage(folder).free / 1e6
        text = f"{folder}: {reason.strerror} ({free:.0f} MB free on this disk); make room and run it again."
        return ErrorKind.DISK, text
    if isinstance(error, SAMMixError):
        return ErrorKind.INPUT, str(error)
    return ErrorKind.INTERNAL, f"Unexpected: {type(error).__name__}: {error}. The log says more."
