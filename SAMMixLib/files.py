"""Files and folders that are whole or not there, and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from SAMMixLib.errors import SAMMixError

CHUNK = 1 << 20  # bytes
DENSEST = 100  # times the size of a zip file that it may unpack to
PATIENCE = 30.0  # seconds to wait for a lock
LONGEST_TAIL = 32  # characters of the name that the file beside keeps: its suffix, and no name grows too long


@contextmanager
def atomic(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """A path beside `path` to write a file to. It takes the place of `path` when the block ends, and goes if it fails.

    Whoever reads `path`, also after a kill or with a full disk, finds the old file or the whole new one.

    Args:
        durable: wait until the file and its name have reached the disk, so that they outlive a loss of power.

    Raises:
        OSError: from the block, or the file cannot be renamed.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "figures.json"
    >>> with atomic(target) as beside:
    ...     _ = beside.write_text("{}")
    >>> target.read_text()
    '{}'
    """
    path = Path(path)
    beside = path.with_name(f".{secrets.token_hex(4)}-{path.name[-LONGEST_TAIL:]}")
    try:
        yield beside
        if durable:
            sync(beside)
        os.replace(beside, path)
        if durable and os.name == "posix":
            sync(path.parent)  # the name, too
    finally:
        beside.unlink(missing_ok=True)


def remove_litter(folder: str | Path) -> None:
    """Remove the files beside that :func:`atomic` left in a folder because its process was killed.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / ".0a1b2c3d-figures.json").write_text("{")
    >>> remove_litter(folder)
    >>> [*folder.iterdir()]
    []
    """
    for beside in Path(folder).glob(f".{'[0-9a-f]' * 8}-*"):
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder beside `folder` to fill. It takes the place of `folder` when the block ends, and goes if it fails.

    An older folder steps aside first, is removed last, and comes back where the new one cannot be renamed. So nobody
    reads a folder that is half old and half new.

    Raises:
        OSError: from the block, or a folder cannot be made or renamed.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "model"
    >>> with atomic_folder(target) as beside:
    ...     _ = (beside / "card.json").write_text("{}")
    >>> [path.name for path in target.iterdir()]
    ['card.json']
    """
    folder = Path(folder)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield beside
        _share(beside)
        _swap_in(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _share(folder: Path) -> None:
    """Give a folder and its files the mode of new ones: mkdtemp and safetensors make private ones."""
    folder.chmod(0o755)
    usual = folder / ".usual"
    usual.touch()
    mode = stat.S_IMODE(usual.stat().st_mode)
    usual.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _swap_in(beside: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    replaced = folder.exists()
    if replaced:
        folder.rename(old)
    try:
        beside.rename(folder)
    except OSError:
        if replaced:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_apart(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Make sure that an output is none of the inputs, nor a file in a folder that is read.

    Compared by identity: links, hard links, and another case on a disk that is blind to it are the same file.

    Raises:
        SAMMixError: it is one.

    >>> check_apart("liver.nii.gz", ["scan.nii.gz"])
    """
    path = Path(path)
    if not os.path.exists(path):  # pathlib's raises for a name that is too long
        return
    for source in map(Path, inputs):
        if not os.path.exists(source):
            continue
        if os.path.samefile(path, source):
            what = "input folder" if source.is_dir() else "input"
            raise SAMMixError(f"{path}: is the {what} itself; choose another place for the output")
        folders = path.resolve().parents if source.is_dir() and path.is_file() else ()
        if any(os.path.samefile(folder, source) for folder in folders):
            raise SAMMixError(f"{path}: is a file of the input folder {source}; choose another place")


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `folder` when the block ends, and goes if it fails.

    Unlike :func:`atomic_folder` it takes no older folder's place. There is room for scratch beside it.

    Raises:
        SAMMixError: there is something in `folder`, or it cannot be made.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "set"
    >>> with new_folder(target) as beside:
    ...     _ = (beside / "card.json").write_text("{}")
    >>> [path.name for path in target.iterdir()]
    ['card.json']
    """
    folder = Path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SAMMixError(f"{folder}: is there already; open it, or choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
            beside = Path(parent) / "new"
            beside.mkdir()
            yield beside
            if folder.exists():
                folder.rmdir()
            beside.rename(folder)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other processes that lock the file `path` out while the block runs. The file is made if need be.

    The system holds the lock for as long as this process has the file open: a process that is killed lets go of it.

    Raises:
        SAMMixError: another process has held it for longer than PATIENCE.
        OSError: the file cannot be made.

    >>> import tempfile
    >>> with locked(Path(tempfile.mkdtemp()) / ".lock"):
    ...     pass  # alone here
    """
    with open(path, "ab") as file:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                _lock(file.fileno(), take=True)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > give_up:
                    raise SAMMixError(
                        f"{path}: another process has held it for {PATIENCE:g} s; close it, and try again"
                    ) from None
                time.sleep(0.005)
        try:
            yield
        finally:
            _lock(file.fileno(), take=False)


def _lock(descriptor: int, take: bool) -> None:
    """Take an open file's lock, or let go of it; where another has it, BlockingIOError or PermissionError."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN)


def sync(path: Path) -> None:
    """Wait until a file has reached the disk, or a folder's names where the system can tell (POSIX)."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str, durable: bool = False) -> None:
    """Write UTF-8 text with LF line ends, as :func:`atomic` does.

    Raises:
        OSError: the disk does not take it.
    """
    with atomic(path, durable) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def unzip(source: Path, folder: Path, what: str) -> Iterator[None]:
    """Unpack a zip file into a folder, a member a step, and none outside it.

    Args:
        what: should be in it, for the message.

    Raises:
        SAMMixError: it cannot be read, or is packed as densely as nothing of ours is.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > DENSEST * source.stat().st_size:
                raise ValueError("it would unpack to far more than its own size")
            for member in members:
                archive.extract(member, folder)  # zipfile keeps members inside the folder
                yield
    except Exception as error:  # zipfile raises what its parsers and codecs raise
        raise SAMMixError(f"{source}: not a readable zip file of {what} ({error})") from None


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON: not UTF-8, damaged, or nested beyond all bounds.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_arrays(path: str | Path, **arrays: np.ndarray) -> None:
    """Write a compressed ``.npz`` file, as :func:`atomic` does.

    Raises:
        OSError: the disk does not take it.
    """
    with atomic(path) as beside, beside.open("wb") as file:
        named: dict[str, Any] = dict(arrays)  # numpy's stubs take the arrays for the option allow_pickle, too
        np.savez_compressed(file, **named)


def sha256_of(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal.

    Raises:
        SAMMixError: the file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return digest.hexdigest()
