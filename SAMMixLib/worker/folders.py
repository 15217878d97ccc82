"""A private folder for the files of one client, removed with it, or by others when it has died."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "sammix-worker-"
LOCK = "owner.lock"
YOUNG_SECONDS = 60  # a folder younger than this may be about to get its lock
LOG_SECONDS = 24 * 3600  # how long the log of a run that failed stays


class PrivateFolder:
    """A new folder (0700) that this process owns for as long as it lives: the system holds a lock on a file in it.

    ``path`` is the folder, ``log`` a file (0600) beside it, so that it can outlive the folder.
    """

    def __init__(self, parent: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self.log = self.path.with_suffix(".log")
        os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        _try_lock(self._lock)

    def remove(self, keep_log: bool) -> None:
        os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)
        if not keep_log:
            self.log.unlink(missing_ok=True)


def sweep(parent: Path) -> None:
    """Remove what this user's dead clients left in `parent`, and old logs."""
    for path in parent.glob(f"{PREFIX}*"):
        try:
            status = path.lstat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                continue
            age = time.time() - status.st_mtime
            if path.suffix == ".log" and age > LOG_SECONDS:
                path.unlink()
            elif age > YOUNG_SECONDS:
                remove_if_dead(path)
        except OSError:  # gone meanwhile, or in use on Windows
            continue


def remove_if_dead(folder: Path) -> bool:
    """Remove a client's folder and log, and say so, if its owner is provably dead: nobody holds the lock."""
    if not folder.name.startswith(PREFIX) or folder.is_symlink():
        return False
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    dead = _try_lock(lock)
    os.close(lock)
    if dead:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
    return dead


def _try_lock(file: int) -> bool:
    """Lock an open file until it is closed; False where another process has locked it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
