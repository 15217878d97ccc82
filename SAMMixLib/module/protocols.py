"""What a session needs from the outside: a worker, a case in the scene, the user, and a place for settings."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from SAMMixLib.module.case_state import Findings
    from SAMMixLib.module.texts import Question
    from SAMMixLib.structure import Structure
    from SAMMixLib.worker.protocol import Message, Request


class Worker(Protocol):
    """The client of the worker process, see ``SAMMixLib.worker``."""

    folder: Path | None  # from start on
    log_path: Path | None
    pid: int | None  # from hello on

    @property
    def alive(self) -> bool: ...
    def start(self) -> None: ...
    def request(self, request: Request) -> int: ...
    def poll(self) -> list[tuple[int | None, Message]]: ...
    def cancel(self, number: int) -> None: ...
    def close(self) -> None: ...


class Case(Protocol):
    """One CT with its liver segmentation. Slices are the k of the axial stack.

    Long work comes as an iterator of short steps, so that the caller can look after its events between them.
    """

    structure: Structure  # which segment is meant; the session sets it

    @property
    def name(self) -> str: ...  # of the scan, as the user knows it
    @property
    def key(self) -> str: ...  # tells cases apart, and changes with the voxels
    @property
    def present(self) -> bool: ...  # whether the scan is in the scene still
    @property
    def version(self) -> str: ...  # of the segment: new with each write, and back again by an undo
    def check(self) -> tuple[bool, str, list[str]]: ...
    def size(self) -> tuple[int, float]: ...  # slices, mm along them
    def current_slice(self) -> int | None: ...
    def has_segment(self, structure: Structure | None = None) -> bool: ...  # its own by default
    def foreign_owner(self) -> str: ...  # the other scan that its segmentation is of; nothing where it is its own
    def renew(self) -> None: ...  # leave that segmentation alone: the next result makes a new one
    def edited_slices(self) -> list[int]: ...  # not as the last result left them
    def corrected_slices(self) -> list[int]: ...  # of these, those of a segment that a result of ours made
    def drawn_slices(self) -> list[int]: ...  # of these, those drawn by hand and not by a correction
    def export(self, path: Path) -> Iterator[None]: ...
    def write(self, mask: Path, slices: list[int] | None) -> Generator[None, None, bool]: ...  # exactly as the file
    def write_slices(self, mask: Path, slices: list[int]) -> Generator[None, None, bool]: ...  # a correction's
    def areas(self) -> list[float]: ...  # mm2 of each slice of the segment
    def take_areas(self, areas: list[float]) -> None: ...  # that the worker has counted
    def show(self, findings: Findings) -> Iterator[None]: ...


class Source(Protocol):
    """One CT that slices are collected from. Slices are the k of the axial stack, at full resolution."""

    @property
    def name(self) -> str: ...
    @property
    def patient(self) -> str: ...  # as the training set knows the scan; empty until `identify` has come to its end
    @property
    def total(self) -> int: ...
    @property
    def spacing(self) -> tuple[float, float]: ...  # mm (row, column)
    def identify(self) -> Iterator[None]: ...
    def images(self, ks: Sequence[int]) -> np.ndarray: ...  # int16 [n, h, w], HU
    def masks(self, ks: Sequence[int], structure: Structure) -> np.ndarray: ...  # uint8 [n, h, w]
    def provenance(self) -> dict[str, Any]: ...


class User(Protocol):
    def ask(self, question: str) -> bool: ...
    def choose(self, question: Question) -> str: ...  # one of its choices, the last where the window is closed


class Store(Protocol):
    """Application settings; ``QSettings`` is one."""

    def value(self, key: str, default: Any) -> Any: ...
    def setValue(self, key: str, value: Any) -> None: ...
