"""The journal of a training set: what was done, one JSON object a line, appended under a lock and never changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import locked

JOURNAL = "journal.jsonl"
SLICES = "slices"
LOCK = ".lock"
EVENTS = ("add", "active")
SAME_SPACING = 1e-4  # relative; single precision and rounding make one scan's spacing differ by this


@dataclass(frozen=True)
class Entry:
    """A slice of the set as it counts now."""

    patient: str
    slice: int  # k of the axial stack
    label: bool  # the structure is in this slice
    has_mask: bool
    active: bool  # to be trained on
    spacing: tuple[float, float]  # mm (row, column)
    file: Path
    row: int  # in `file`
    provenance: dict[str, Any]
    added: str  # UTC, ISO 8601

    @property
    def key(self) -> tuple[str, int]:
        return self.patient, self.slice


class Journal:
    """The journal in a training set's folder. Each line is read once; others may append, so ask to catch up.

    Attributes, as of the last :meth:`catch_up`:
        events: the lines, in order.
        entries: the slices as they count now. For each (patient, slice) the last that was added counts; only a mask is
            not replaced by a mere label that says the same.

    Raises:
        SAMMixError: the journal is damaged or gone.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / JOURNAL
        self._start_anew()
        self.catch_up()

    def _start_anew(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.entries: dict[tuple[str, int], Entry] = {}
        self._pixels: dict[str, tuple[list[int], list[float]]] = {}  # size and spacing of each patient
        self._end, self._last = 0, b""  # how many bytes were read, and the last line of them

    def catch_up(self) -> None:
        """Read the lines that have been written since; all of them where the file is another by now.

        Raises:
            SAMMixError: the journal is damaged or gone.
        """
        try:
            with self.file.open("rb") as file:
                file.seek(self._end - len(self._last))
                if file.read(len(self._last)) != self._last:
                    self._start_anew()
                    file.seek(0)
                new = file.read()
        except OSError as error:
            raise SAMMixError(f"{self.file}: cannot be read ({error.strerror}); restore it from an export") from None
        for line in new.split(b"\n")[:-1]:  # a last one without its end counts for nothing
            self._take(line)
            self._end, self._last = self._end + len(line) + 1, line + b"\n"

    def append(self, events: Sequence[dict[str, Any]]) -> None:
        """Write lines at the journal's end, in place of a last one without end; all of them, or none.

        Raises:
            OSError: the disk does not take them.
            SAMMixError: the journal is damaged, or an event has other pixels than the patient's before.
        """
        with locked(self.folder / LOCK):
            self.catch_up()
            for event in events:
                if event["event"] == "add":
                    self.check_pixels(event["patient"], event["size"], event["spacing"])
            try:
                with self.file.open("r+b") as file:
                    file.truncate(self._end)
                    file.seek(self._end)
                    file.write(lines(events))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                os.truncate(self.file, self._end)
                raise
            self.catch_up()

    def check_pixels(self, patient: str, size: list[int], spacing: list[float]) -> None:
        """Make sure that a patient's slices are all of one scan.

        Raises:
            SAMMixError: those in the journal have another size [2] or spacing [2] in mm.
        """
        held = self._pixels.get(patient)
        if held and not (held[0] == size and np.allclose(held[1], spacing, SAME_SPACING)):
            raise SAMMixError(
                f"{self.folder}: holds patient {patient} with other pixels than {size} of {spacing} mm; "
                "give this scan another name"
            )

    def _take(self, line: bytes) -> None:
        number = len(self.events) + 1
        try:
            event = json.loads(line)
            if event["event"] not in EVENTS:
                raise SAMMixError(f"{self.file}: line {number}: unknown event {event['event']!r}; update SAMMix")
            if not (_is_tick(event, self.entries) if event["event"] == "active" else _is_add(event)):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SAMMixError(f"{self.file}: line {number} is damaged; restore it from an export") from None
        self.events.append(event)
        if event["event"] == "active":
            for patient, k in event["keys"]:
                self.entries[patient, k] = replace(self.entries[patient, k], active=event["active"])
            return
        self._pixels.setdefault(event["patient"], (event["size"], event["spacing"]))
        for entry in self._added(event):
            before = self.entries.get(entry.key)
            if before and before.has_mask and not entry.has_mask and before.label == entry.label:
                entry = replace(before, active=True)
            self.entries[entry.key] = entry

    def _added(self, event: dict[str, Any]) -> list[Entry]:
        return [
            Entry(
                patient=event["patient"],
                slice=k,
                label=label,
                has_mask=event["has_mask"],
                active=True,
                spacing=tuple(event["spacing"]),
                file=self.folder / SLICES / event["file"],
                row=row,
                provenance=event["provenance"],
                added=event["added"],
            )
            for row, (k, label) in enumerate(zip(event["slices"], event["labels"], strict=True))
        ]


def lines(events: Iterable[dict[str, Any]]) -> bytes:
    """Events as the journal holds them."""
    return b"".join(json.dumps(event, allow_nan=False).encode() + b"\n" for event in events)


def _is_tick(event: dict[str, Any], known: dict[tuple[str, int], Entry]) -> bool:
    return isinstance(event["active"], bool) and all((patient, k) in known for patient, k in event["keys"])


def _is_add(event: dict[str, Any]) -> bool:
    return bool(
        isinstance(event["patient"], str)
        and len(event["slices"]) == len(event["labels"])
        and all(type(k) is int for k in event["slices"])
        and all(isinstance(label, bool) for label in event["labels"] + [event["has_mask"]])
        and all(type(n) is int for n in event["size"])
        and all(float(side) > 0 for side in event["spacing"])
        and len(event["size"]) == len(event["spacing"]) == 2
        and re.fullmatch(r"[0-9a-f]{16}\.npz", event["file"])
        and isinstance(event["provenance"], dict)
        and isinstance(event["added"], str)
    )
