"""Pseudonyms for patients and scans, and the key file that leads back: kept apart from the results."""

from __future__ import annotations

import csv
import hmac
import os
import re
import secrets
from dataclasses import replace
from pathlib import Path

from SAMMixLib.cohort.manifest import Entry
from SAMMixLib.cohort.names import KnownNames
from SAMMixLib.errors import SAMMixError

COLUMNS = ("pseudonym", "patient", "study", "series", "description", "path", "name")
FIRST = "# secret "
LEAST_LETTERS = 3  # shorter parts of a path are words of any sentence


class Pseudonyms:
    """Names that say nothing, the same at each run: made with a secret that stands in the key file only."""

    def __init__(self, key: Path) -> None:
        """Open the key file, or begin one that only its owner reads.

        Raises:
            SAMMixError: it cannot be read or written, or is no key file.
        """
        self.path = key
        try:
            if not key.exists():
                with os.fdopen(
                    os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
                ) as file:
                    file.write(f"{FIRST}{secrets.token_hex(32)}\n{','.join(COLUMNS)}\n")
            _end_last_line(key)
            with key.open(encoding="utf-8", newline="") as file:
                first = file.readline().strip()
                self._known = KnownNames(row[0] for row in csv.reader(file) if row)
        except (OSError, UnicodeDecodeError) as error:
            raise SAMMixError(f"{key}: the key file cannot be used ({error}); choose another place") from None
        if not re.fullmatch(rf"{FIRST}[0-9a-f]{{64}}", first):
            raise SAMMixError(f"{key}: no key file of a cohort; move it away or choose another OUT")
        self.secret = first.removeprefix(FIRST)

    def of(self, kind: str, identity: str) -> str:
        """One letter of the kind and 12 digits: among 100,000 patients two alike have a chance of 2 in 100,000."""
        digits = hmac.new(self.secret.encode(), f"{kind} {identity}".encode(), "sha256").hexdigest()[:12]
        return f"{kind[0].upper()}-{digits}"

    def hide(self, entry: Entry) -> Entry:
        """The entry with a name that says nothing, noted in the key file; its paths are for the worker only."""
        patient = self.of("patient", entry.patient or entry.name)
        name = f"{patient}/{self.of('scan', entry.name)}"
        if self._known.add(name):
            row = (name, entry.patient, entry.study, entry.series, entry.description, entry.path, entry.name)
            try:
                with self.path.open("a", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerow(row)
            except OSError as error:
                raise SAMMixError(f"{self.path}: not written ({error.strerror}); free some disk space") from None
        return replace(entry, name=name)


def _end_last_line(key: Path) -> None:
    """Take away the beginning of a row that a killed run or a full disk left at the end: it is written anew."""
    with key.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def without_identity(text: str, entry: Entry) -> str:
    """A message without the path, the names and the identifiers of the scan that it speaks of."""
    parts = {part for file in (entry.path, *entry.files[:1]) for part in Path(file).parts}
    parts |= {entry.path, entry.patient, entry.study, entry.series, entry.description, *entry.files}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= LEAST_LETTERS:
            text = text.replace(part, "[...]")
    return re.sub(r"\b\d+(\.\d+){4,}\b", "[UID]", text)
