"""What a session needs from the outside: a worker, a case in the scene, the user, and a place for settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from SAMMixLib.session.findings import Findings


class Worker(Protocol):
    """The client of the worker process, see ``SAMMixLib.worker``."""

    folder: Path
    log_path: Path
    alive: bool
    pid: int | None  # from hello on

    def start(self) -> None: ...
    def request(self, kind: str, **fields: Any) -> int: ...
    def poll(self) -> list[dict[str, Any]]: ...
    def cancel(self, request: int) -> None: ...
    def close(self) -> None: ...


class Case(Protocol):
    """One CT with its liver segmentation. Slices are the k of the axial stack.

    Long work comes as an iterator of short steps, so that the caller can look after its events between them.
    """

    key: str  # tells cases apart, and changes with the voxels
    version: str  # of the liver segment: new with each write, and back again by an undo

    def check(self) -> tuple[bool, str, list[str]]: ...
    def size(self) -> tuple[int, float]: ...  # slices, mm along them
    def current_slice(self) -> int | None: ...
    def edited_slices(self) -> list[int]: ...  # not as the last result left them
    def drawn_slices(self) -> list[int]: ...  # of these, those drawn by hand and not by a correction
    def export(self, path: Path) -> Iterator[None]: ...
    def write(self, mask: Path, slices: list[int] | None, correction: bool) -> Iterator[None]: ...
    def areas(self) -> list[float]: ...  # mm2 of each slice of the liver segment
    def show(self, findings: Findings) -> Iterator[None]: ...


class User(Protocol):
    def ask(self, question: str) -> bool: ...


class Store(Protocol):
    """Application settings; ``QSettings`` is one."""

    def value(self, key: str, default: Any) -> Any: ...
    def setValue(self, key: str, value: Any) -> None: ...
