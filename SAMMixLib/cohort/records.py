"""What was done with a scan, beside its mask: the one truth about whether it is done."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from SAMMixLib import __version__
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import read_json, sha256_of

SCHEMA = 1
DONE, FAILED = "done", "failed"
MASKS, RECORDS, THUMBNAILS, VIEWER, TRIES, BESIDE = "masks", "records", "thumbnails", "viewer", ".tries", ".beside"
TRIES_AT_MOST = 3  # the first, and two more
SUFFIXES = {"nifti": ".nii.gz", "nrrd": ".nrrd", "segnrrd": ".seg.nrrd", "mha": ".mha", "dicomseg": ".dcm"}


@dataclass(frozen=True)
class Settings:
    """What is the same for all scans of a cohort; it travels to the workers once.

    ``secret`` is the key of the pseudonyms, empty unless they are wanted (``anonymise``). ``deadline`` is in seconds
    for one scan.
    """

    out: str
    format: str = "nifti"
    viewer: bool = False
    measurements: bool = False
    deadline: float = 1800.0
    model: str = ""
    model_hash: str = ""
    anonymise: bool = False
    secret: str = ""


@dataclass(frozen=True)
class Place:
    """Where the files of one scan lie in the folder of the results."""

    out: Path
    name: str

    def at(self, room: str, suffix: str) -> Path:
        return self.out / room / f"{self.name}{suffix}"

    @property
    def record(self) -> Path:
        return self.at(RECORDS, ".json")

    @property
    def tries(self) -> Path:
        """Counts the starts; gone when the scan is done. It outlives a worker that is killed."""
        return self.out / TRIES / hashlib.sha256(self.name.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Stamp:
    """By what an input is known again: quickly by ``facts`` (sizes and times of change), surely by ``sha256``."""

    facts: str
    sha256: str = ""


def stamp_of(files: Sequence[Path], secret: str = "") -> Stamp:
    """The quick part only; :func:`with_hash` adds the other.

    Raises:
        SAMMixError: a file is missing.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            facts = file.stat()
        except OSError as error:
            raise SAMMixError(f"{file}: cannot be read ({error.strerror}); check the path") from None
        digest.update(f"{facts.st_size} {facts.st_mtime_ns}\n".encode())
    return Stamp(_keyed(digest.hexdigest(), secret))


def with_hash(stamp: Stamp, files: Sequence[Path], secret: str = "") -> Stamp:
    """The stamp with the SHA-256 of the content; of several files it does not depend on their names and order.

    With a `secret` nobody who has the file can look its hash up.
    """
    hashes = sorted(sha256_of(file) for file in files)
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return Stamp(stamp.facts, _keyed(whole, secret))


def _keyed(text: str, secret: str) -> str:
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest() if secret else text


def read_record(place: Place) -> dict[str, Any] | None:
    """The record of a scan, None where there is none or it is damaged: then the scan is run again."""
    try:
        record = read_json(place.record)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


def stored_records(out: Path) -> Iterator[dict[str, Any]]:
    """All records in the folder of the results, sorted by name within each folder."""
    for folder, folders, files in os.walk(out / RECORDS):
        folders.sort()
        place = Path(folder).relative_to(out / RECORDS)
        for name in sorted(file.removesuffix(".json") for file in files):
            record = read_record(Place(out, (place / name).as_posix()))
            if record is not None:
                yield record


def write_record(place: Place, record: dict[str, Any]) -> None:
    """Write the record last, when all that it speaks of is in place.

    Raises:
        SAMMixError: the disk does not take it.
    """
    beside = place.out / BESIDE / f"{secrets.token_hex(8)}.json"
    try:
        for folder in (beside.parent, place.record.parent):
            folder.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8", newline="\n")
        beside.replace(place.record)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SAMMixError(f"{place.record}: not written ({error.strerror}); free some disk space") from None


def is_settled(record: dict[str, Any], settings: Settings) -> bool:
    """Whether the record speaks of this model and of what is wanted now, and its outputs are whole.

    A scan that was refused for what it is (no CT, damaged) is settled, too, for this version of the program.
    """
    if record["model_hash"] != settings.model_hash:
        return False
    if record["status"] == FAILED:
        return bool(record["final"]) and record["versions"]["sammix"] == __version__
    out = Path(settings.out)
    rooms = {Path(output).parts[0] for output in record["outputs"]}
    return (
        record["format"] == settings.format
        and (VIEWER in rooms or not settings.viewer)
        and record["measurements"] == settings.measurements
        and all(_whole(out / output, sha256) for output, sha256 in record["outputs"].items())
    )


def _whole(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def new_record(name: str, stamp: Stamp, settings: Settings) -> dict[str, Any]:
    """A record with what is known before the work."""
    return {
        "schema": SCHEMA,
        "scan": name,
        "status": FAILED,
        "reason": "",
        "final": False,
        "input": asdict(stamp),
        "model": settings.model,
        "model_hash": settings.model_hash,
        "format": settings.format,
        "measurements": settings.measurements,
        "outputs": {},
        "warnings": [],
        "versions": {"sammix": __version__},
    }


class Tries:
    """How often the work on a scan was begun. A worker that is killed leaves its mark; one that ends takes it away."""

    def __init__(self, place: Place) -> None:
        self.path = place.tries

    def begin(self) -> str:
        """Note one more start; the reason not to, where there were too many or the last one passed its deadline.

        Raises:
            SAMMixError: the folder of the results takes no file.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            before = self.path.read_text(errors="replace") if self.path.exists() else ""
            if "Timeout (" in before:  # the words of faulthandler
                return "hung past its deadline; its worker was stopped"
            if self.started(before) >= TRIES_AT_MOST:
                return f"killed its worker on each of {TRIES_AT_MOST} tries (out of memory, or a crash)"
            with self.path.open("a") as file:
                file.write("start\n")
        except OSError as error:
            raise SAMMixError(
                f"{self.path.parent.parent}: cannot be written ({error.strerror}); free some disk space"
            ) from None
        return ""

    @staticmethod
    def started(text: str) -> int:
        return text.count("start\n")

    @property
    def count(self) -> int:
        try:
            return self.started(self.path.read_text(errors="replace"))
        except OSError:
            return 0

    def end(self) -> None:
        self.path.unlink(missing_ok=True)


def output_hashes(out: Path, files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of outputs by their path below `out`, with slashes."""
    return {file.relative_to(out).as_posix(): sha256_of(file) for file in files}


def model_hash(folder: str | Path) -> str:
    """One hash for all that decides what a model does: its files, its config, its structure and its base weights."""
    from SAMMixLib.models.card import open_bundle

    card = open_bundle(folder).card
    decisive = {key: card.get(key) for key in ("sha256", "config", "structure", "base")}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
