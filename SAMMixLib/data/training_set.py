"""A training set on disk: labelled slices of one structure, from any number of scans and sittings.

=====================  ================================================================================================
``training_set.json``  schema, name, structure
``journal.jsonl``      what was done, in order: one JSON object a line, appended, never changed
``slices/``            ``.npz`` files, each named by the SHA-256 of its content: ``image`` int16 [n, h, w] in HU,
                       ``mask`` uint8 [n, h, w] where there is one, ``slice`` int [n], ``label`` bool [n], ``patient``,
                       ``spacing`` [2] in mm (row, column)
=====================  ================================================================================================

Slices are those of the axial stack at full resolution. What an ``add`` returned is on the disk: the slices are there,
under their name, before the journal tells of them. A process that is killed leaves at most a last line without its
end, which counts for nothing and goes with the next line that is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.hounsfield import AIR
from SAMMixLib.structure import LIVER, Structure

SCHEMA = 1
CARD = "training_set.json"
JOURNAL = "journal.jsonl"
SLICES = "slices"
SLICES_IN_FILE = 16  # what is read to show one slice
SAME_SPACING = 1e-4  # relative; single precision and rounding make one scan's spacing differ by this
ROWS = ("image", "mask", "slice", "label")  # arrays with one row a slice
EVENTS = ("add", "active")


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


def patient_name(name: str, array: np.ndarray, spacing: Sequence[float]) -> str:
    """``name`` with a short hash of the scan, so that no two scans of one name mix and the same scan is known again.

    Args:
        array: the axial stack [k, j, i] in HU.
        spacing: (k, j, i) in mm.
    """
    *_, found = patient_name_in_steps(name, array, spacing)
    return found


def patient_name_in_steps(name: str, array: np.ndarray, spacing: Sequence[float]) -> Iterator[str]:
    """As :func:`patient_name`, a slice a step; only the last that comes is the name."""
    digest = hashlib.sha256(repr((array.shape, [f"{side:.3f}" for side in spacing])).encode())
    for plane in array:
        digest.update(np.maximum(_as_int16(plane), AIR).astype("<i2").tobytes())
        yield f"{name}-{digest.hexdigest()[:8]}"


@dataclass(frozen=True)
class TrainingSet:
    """A training set, open. Nothing of its state is held here: other processes may add to it meanwhile.

    Example:
        >>> stack = read_volume("scan.nii.gz").axial()
        >>> ours = TrainingSet.create("my_set")
        >>> added = ours.add("patient-1", [3, 4], stack.array[[3, 4]], stack.spacing[1:], labels=[False, True])
        >>> [(entry.slice, entry.label, entry.has_mask) for entry in TrainingSet.open("my_set").entries()]
        [(3, False, False), (4, True, False)]
    """

    folder: Path
    name: str
    structure: Structure

    @classmethod
    def create(cls, folder: str | Path, structure: Structure = LIVER, name: str | None = None) -> TrainingSet:
        """A new, empty set; `folder` may not exist yet, or must be empty.

        Raises:
            SAMMixError: there is something in `folder`, or it cannot be made.
        """
        folder = Path(folder)
        with _new_folder(folder) as beside:
            (beside / SLICES).mkdir()
            (beside / JOURNAL).touch()
            card = {"schema": SCHEMA, "name": name or folder.name, "structure": structure.to_dict()}
            (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> TrainingSet:
        """The set in `folder`.

        Raises:
            SAMMixError: there is none, or it is damaged or written by a newer SAMMix.
        """
        card_file = Path(folder) / CARD
        try:
            card = json.loads(card_file.read_text(encoding="utf-8"))
            schema, name, structure = card["schema"], card["name"], card["structure"]
        except OSError:
            raise SAMMixError(f"{folder}: no training set here ({CARD} is missing); choose another folder") from None
        except (ValueError, KeyError, TypeError) as error:
            raise SAMMixError(f"{card_file}: damaged ({error!r}); restore it from an export") from None
        if not isinstance(schema, int) or not isinstance(name, str):
            raise SAMMixError(f"{card_file}: damaged (schema or name); restore it from an export")
        if schema > SCHEMA:
            raise SAMMixError(f"{card_file}: schema {schema} is newer than this SAMMix knows ({SCHEMA}); update SAMMix")
        opened = cls(Path(folder), name, Structure.from_dict(structure, str(card_file)))
        opened.entries()
        return opened

    def add(
        self,
        patient: str,
        slices: Sequence[int],
        images: np.ndarray,
        spacing: tuple[float, float],
        labels: Sequence[bool],
        masks: np.ndarray | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> list[Entry]:
        """Add slices of one scan; when this returns they are on the disk. They count as ticked.

        Args:
            patient: which scan, see :func:`patient_name`.
            slices: [n] k of the axial stack.
            images: [n, h, w] in HU; kept as int16.
            spacing: mm (row, column).
            labels: [n], whether the structure is in the slice.
            masks: [n, h, w], the structure where not 0; kept as 0 and 1.
            provenance: where they come from; anything that JSON can hold.

        Raises:
            SAMMixError: shapes, labels and masks do not fit each other, or not what the set holds of this patient; or
                the disk does not take it. Nothing is added then.
        """
        arrays = _checked(patient, slices, images, spacing, labels, masks)
        spacing = arrays["spacing"].tolist()
        size = list(arrays["image"].shape[1:])
        held = next((event for event in self._events() if event.get("patient") == patient), None)
        if held and not (held["size"] == size and np.allclose(held["spacing"], spacing, SAME_SPACING)):
            raise SAMMixError(
                f"{self.folder}: holds patient {patient} with other pixels than {size} of {spacing} mm; "
                "give this scan another name"
            )
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        events = []
        try:
            for start in range(0, len(slices), SLICES_IN_FILE):
                rows = slice(start, start + SLICES_IN_FILE)
                part = {key: arrays[key][rows] for key in ROWS if key in arrays}
                events.append(
                    {
                        "event": "add",
                        "patient": patient,
                        "slices": part["slice"].tolist(),
                        "labels": part["label"].tolist(),
                        "has_mask": masks is not None,
                        "size": size,
                        "spacing": spacing,
                        "file": self._store(arrays | part),
                        "provenance": provenance or {},
                        "added": now,
                    }
                )
            self._append(events)
        except OSError as error:
            raise SAMMixError(f"{self.folder}: cannot be written ({error.strerror}); free some disk space") from None
        keys = {(patient, k) for k in arrays["slice"].tolist()}
        return [entry for entry in self.entries() if entry.key in keys]

    def set_active(self, keys: Iterable[tuple[str, int]], active: bool) -> None:
        """Tick or untick slices, given as (patient, slice): unticked ones stay but are not trained on.

        Raises:
            SAMMixError: a slice is not in the set, or the disk does not take it.
        """
        keys = [(patient, int(k)) for patient, k in keys]
        unknown = set(keys) - {entry.key for entry in self.entries()}
        if unknown:
            patient, k = min(unknown)
            raise SAMMixError(f"{self.folder}: slice {k} of {patient} is not in the training set")
        try:
            self._append([{"event": "active", "keys": keys, "active": bool(active)}])
        except OSError as error:
            raise SAMMixError(f"{self.folder}: cannot be written ({error.strerror}); free some disk space") from None

    def entries(self) -> list[Entry]:
        """The slices as they count now, sorted by patient and slice.

        For each (patient, slice) the last that was added counts; only a mask is not replaced by a mere label that says
        the same.

        Raises:
            SAMMixError: the journal is damaged or gone.
        """
        found: dict[tuple[str, int], Entry] = {}
        for event in self._events():
            if event["event"] == "active":
                for patient, k in event["keys"]:
                    found[patient, k] = replace(found[patient, k], active=event["active"])
                continue
            for row, (k, label) in enumerate(zip(event["slices"], event["labels"], strict=True)):
                entry = Entry(
                    event["patient"],
                    k,
                    label,
                    event["has_mask"],
                    True,
                    tuple(event["spacing"]),
                    self.folder / SLICES / event["file"],
                    row,
                    event["provenance"],
                    event["added"],
                )
                before = found.get(entry.key)
                if before and before.has_mask and not entry.has_mask and before.label == label:
                    entry = replace(before, active=True)
                found[entry.key] = entry
        return sorted(found.values(), key=lambda entry: entry.key)

    def load(self, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
        """Image int16 [h, w] in HU and mask uint8 [h, w], 0 or 1; zeros where there is no mask.

        Raises:
            SAMMixError: the file is missing, or is not what was written.
        """
        arrays = _read(entry.file)
        image = arrays["image"][entry.row].copy()
        return image, arrays["mask"][entry.row].copy() if entry.has_mask else np.zeros(image.shape, np.uint8)

    def verify(self) -> None:
        """Check every file against its hash, and the journal against what the files say.

        Raises:
            SAMMixError: something is missing, or is not what was written; names the first file.
        """
        for _ in self._verified():
            pass

    def _verified(self) -> Iterator[None]:
        """As :meth:`verify`, a file a step."""
        for event in self._events():
            if event["event"] == "add":
                file = self.folder / SLICES / event["file"]
                arrays = _read.__wrapped__(file)  # from the disk, whatever was read before
                said = [arrays[key].tolist() for key in ("patient", "slice", "label", "spacing")]
                if said != [event["patient"], event["slices"], event["labels"], event["spacing"]]:
                    raise SAMMixError(f"{self.folder / JOURNAL}: differs from {file.name}; restore it from an export")
                yield

    def export(self, target: str | Path) -> Path:
        """Write the set as one zip file, checked first, which :meth:`import_` reads on another machine.

        Raises:
            SAMMixError: the set is damaged, or the file cannot be written.
        """
        for _ in self.export_in_steps(target):
            pass
        return Path(target)

    def export_in_steps(self, target: str | Path) -> Iterator[None]:
        """As :meth:`export`, for a caller that has windows to look after; the file is there after the last step."""
        target = Path(target)
        if target.suffix.lower() != ".zip":
            raise SAMMixError(f"{target}: a training set is exported as a .zip file; give such a name")
        yield from self._verified()
        events = self._events()
        beside = target.with_name(f".{target.stem}-{secrets.token_hex(4)}.zip")
        try:
            with zipfile.ZipFile(beside, "w") as archive:  # the slices are packed already
                archive.write(self.folder / CARD, f"{target.stem}/{CARD}")
                archive.writestr(f"{target.stem}/{JOURNAL}", _lines(events))
                for file in sorted({event["file"] for event in events if event["event"] == "add"}):
                    archive.write(self.folder / SLICES / file, f"{target.stem}/{SLICES}/{file}")
                    yield
            os.replace(beside, target)
        except OSError as error:
            raise SAMMixError(f"{target}: cannot be written ({error.strerror}); choose another place") from None
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def import_(cls, source: str | Path, folder: str | Path) -> TrainingSet:
        """The set of an exported zip file, checked, in a new `folder`.

        Raises:
            SAMMixError: no such set, a damaged one, or there is something in `folder`.
        """
        for _ in cls.import_in_steps(source, folder):
            pass
        return cls.open(folder)

    @classmethod
    def import_in_steps(cls, source: str | Path, folder: str | Path) -> Iterator[None]:
        """As :meth:`import_`, for a caller that has windows to look after; the set is there after the last step."""
        with _new_folder(Path(folder)) as beside:
            try:
                with zipfile.ZipFile(source) as archive:
                    for member in archive.infolist():
                        archive.extract(member, beside.parent / "zip")  # zipfile keeps members inside the folder
                        yield
            except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
                raise SAMMixError(f"{source}: not a readable zip file of a training set ({error})") from None
            cards = list((beside.parent / "zip").rglob(CARD))
            if len(cards) != 1:
                raise SAMMixError(f"{source}: holds {len(cards)} training sets; give a zip file of one")
            beside.rmdir()
            cards[0].parent.rename(beside)
            try:
                yield from cls.open(beside)._verified()
            except SAMMixError as error:
                raise SAMMixError(f"{source}: {str(error).removeprefix(f'{beside}{os.sep}')}") from None

    def _events(self) -> list[dict[str, Any]]:
        """The journal's whole lines."""
        journal = self.folder / JOURNAL
        try:
            lines = journal.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise SAMMixError(f"{journal}: cannot be read ({error.strerror}); restore it from an export") from None
        events, known = [], set()
        for number, line in enumerate(lines, 1):
            try:
                event = json.loads(line)
                if event["event"] not in EVENTS:
                    raise SAMMixError(f"{journal}: line {number}: unknown event {event['event']!r}; update SAMMix")
                _check_event(event, known)
            except (ValueError, KeyError, TypeError):
                raise SAMMixError(f"{journal}: line {number} is damaged; restore it from an export") from None
            events.append(event)
        return events

    def _append(self, events: list[dict[str, Any]]) -> None:
        """Write lines at the journal's end, in place of a last one without end; all of them, or none."""
        journal = self.folder / JOURNAL
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)
        try:
            with journal.open("ab") as file:  # what another process appended meanwhile stays
                file.write(_lines(events))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(journal, whole)
            raise

    def _store(self, arrays: dict[str, np.ndarray]) -> str:
        """Write one file of slices; its name."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        content = packed.getvalue()
        name = f"{_hash(content)}.npz"
        beside = self.folder / SLICES / f".{name}-{secrets.token_hex(4)}"
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, beside.with_name(name))
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(beside.parent)
        return name


def _check_event(event: dict[str, Any], known: set[tuple[str, int]]) -> None:
    """Raises ValueError, KeyError or TypeError where `event` is none; `known` are the slices added before."""
    if event["event"] == "active":
        good = isinstance(event["active"], bool) and all((patient, k) in known for patient, k in event["keys"])
    else:
        good = (
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
        known |= {(event["patient"], k) for k in event["slices"]}
    if not good:
        raise ValueError


def _checked(patient, slices, images, spacing, labels, masks) -> dict[str, np.ndarray]:
    """The arrays of a file, of one length and type, where they fit each other."""
    images, labels = np.asarray(images), np.asarray(labels, bool)
    n = len(slices)
    if n == 0:
        raise SAMMixError(f"{patient}: no slices to add; choose some first")
    if images.ndim != 3 or len(images) != n or labels.shape != (n,):
        raise SAMMixError(f"{patient}: {n} slices, but images {images.shape} and labels {labels.shape}")
    if len(set(map(int, slices))) < n:
        raise SAMMixError(f"{patient}: a slice is given twice")
    if len(spacing) != 2 or not all(0 < side < np.inf for side in spacing):
        raise SAMMixError(f"{patient}: the spacing is {spacing} mm; give (row, column) above 0")
    if not np.isfinite(images).all():
        raise SAMMixError(f"{patient}: the image holds NaN or infinity; repair it first")
    arrays = {"image": _as_int16(images), "slice": np.asarray(slices, np.int64), "label": labels}
    if masks is not None:
        if np.shape(masks) != images.shape:
            raise SAMMixError(f"{patient}: the masks are {np.shape(masks)}, the images {images.shape}")
        arrays["mask"] = (np.asarray(masks) != 0).astype(np.uint8)
        wrong = np.flatnonzero(arrays["mask"].any((1, 2)) != labels)
        if wrong.size:
            says = "holds the structure but its mask is empty" if labels[wrong[0]] else "is without, but has a mask"
            raise SAMMixError(f"{patient}: slice {slices[wrong[0]]} {says}; correct the mask or the label")
    return arrays | {"patient": np.array(patient), "spacing": np.array(spacing, float)}


@lru_cache(maxsize=4)
def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, whose name is the hash of its content."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SAMMixError(f"{file}: cannot be read ({error.strerror}); restore it from an export") from None
    if _hash(content) != file.stem:
        raise SAMMixError(f"{file}: is not as it was written; restore it from an export")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _as_int16(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.int16:
        return array
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(array), limits.min, limits.max).astype(np.int16)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event, allow_nan=False).encode() + b"\n" for event in events)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside, which becomes `folder` at the end."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SAMMixError(f"{folder}: is there already; open it, or choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
            beside = Path(parent) / "set"
            beside.mkdir()
            yield beside
            if folder.exists():
                folder.rmdir()
            beside.rename(folder)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
