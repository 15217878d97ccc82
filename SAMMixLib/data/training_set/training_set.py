"""A training set, open: slices go in, and what is known of them comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from SAMMixLib.data.training_set import archive
from SAMMixLib.data.training_set.card import Card
from SAMMixLib.data.training_set.journal import JOURNAL, SLICES, Entry, Journal
from SAMMixLib.data.training_set.labelled import LabelledSlices
from SAMMixLib.data.training_set.slice_files import recent_slice_file, write_slice_file
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import new_folder
from SAMMixLib.structure import LIVER, Structure

SLICES_IN_FILE = 16  # what is read to show one slice
ROWS = ("image", "mask", "slice", "label")  # arrays with one row a slice


@dataclass(frozen=True)
class TrainingSet:
    """A training set, open. Other processes may add to it meanwhile.

    Example:
        >>> stack = read_volume("scan.nii.gz").axial()
        >>> ours = TrainingSet.create("my_set")
        >>> added = ours.add(
        ...     LabelledSlices("patient-1", [3, 4], stack.array[[3, 4]], stack.spacing[1:], labels=[False, True])
        ... )
        >>> [(entry.slice, entry.label, entry.has_mask) for entry in TrainingSet.open("my_set").entries()]
        [(3, False, False), (4, True, False)]
    """

    folder: Path
    name: str
    structure: Structure
    _journal: Journal = field(repr=False, compare=False)

    @classmethod
    def create(cls, folder: str | Path, structure: Structure = LIVER, name: str | None = None) -> TrainingSet:
        """A new, empty set; `folder` may not exist yet, or must be empty.

        Raises:
            SAMMixError: there is something in `folder`, or it cannot be made.
        """
        folder = Path(folder)
        with new_folder(folder) as beside:
            (beside / SLICES).mkdir()
            (beside / JOURNAL).touch()
            Card(name or folder.name, structure).write(beside)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> TrainingSet:
        """The set in `folder`.

        Raises:
            SAMMixError: there is none, or it is damaged or written by a newer SAMMix.
        """
        folder = Path(folder)
        card = Card.read(folder)
        return cls(folder, card.name, card.structure, Journal(folder))

    def add(self, labelled: LabelledSlices) -> list[Entry]:
        """Add slices of one scan; when this returns they are on the disk. They count as ticked.

        Raises:
            SAMMixError: they do not fit each other, or not what the set holds of this patient; or the disk does not
                take them. Nothing is added then.
        """
        arrays = labelled.arrays()
        size, spacing = list(arrays["image"].shape[1:]), arrays["spacing"].tolist()
        self._journal.catch_up()
        self._journal.check_pixels(labelled.patient, size, spacing)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        events = []
        with self._writing():
            for start in range(0, len(arrays["slice"]), SLICES_IN_FILE):
                rows = slice(start, start + SLICES_IN_FILE)
                part = {key: arrays[key][rows] for key in ROWS if key in arrays}
                events.append(
                    {
                        "event": "add",
                        "patient": labelled.patient,
                        "slices": part["slice"].tolist(),
                        "labels": part["label"].tolist(),
                        "has_mask": "mask" in part,
                        "size": size,
                        "spacing": spacing,
                        "file": write_slice_file(self.folder / SLICES, arrays | part),
                        "provenance": labelled.provenance,
                        "added": now,
                    }
                )
            self._journal.append(events)
        return [self._journal.entries[labelled.patient, k] for k in sorted(arrays["slice"].tolist())]

    def set_active(self, keys: Iterable[tuple[str, int]], active: bool) -> None:
        """Tick or untick slices, given as (patient, slice): unticked ones stay but are not trained on.

        Raises:
            SAMMixError: a slice is not in the set, or the disk does not take it.
        """
        keys = [(patient, int(k)) for patient, k in keys]
        self._journal.catch_up()
        unknown = set(keys) - set(self._journal.entries)
        if unknown:
            patient, k = min(unknown)
            raise SAMMixError(f"{self.folder}: slice {k} of {patient} is not in the training set")
        with self._writing():
            self._journal.append([{"event": "active", "keys": keys, "active": bool(active)}])

    def entries(self) -> list[Entry]:
        """The slices as they count now, sorted by patient and slice.

        Raises:
            SAMMixError: the journal is damaged or gone.
        """
        self._journal.catch_up()
        return sorted(self._journal.entries.values(), key=lambda entry: entry.key)

    def load(self, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
        """Image int16 [h, w] in HU and mask uint8 [h, w], 0 or 1; zeros where there is no mask.

        Raises:
            SAMMixError: the file is missing, or is not what was written.
        """
        arrays = recent_slice_file(entry.file)
        image = arrays["image"][entry.row].copy()
        return image, arrays["mask"][entry.row].copy() if entry.has_mask else np.zeros(image.shape, np.uint8)

    def verify(self) -> None:
        """Check every file against its hash, and the journal against what the files say.

        Raises:
            SAMMixError: something is missing, or is not what was written; names the first file.
        """
        for _ in archive.verified_in_steps(Journal(self.folder)):
            pass

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
        return archive.export_in_steps(self.folder, Path(target))

    @classmethod
    def import_(cls, source: str | Path, folder: str | Path) -> TrainingSet:
        """The set of an exported zip file, checked, in a new `folder`.

        Raises:
            SAMMixError: no such set, a damaged one, or there is something in `folder`.
        """
        for _ in cls.import_in_steps(source, folder):
            pass
        return cls.open(folder)

    @staticmethod
    def import_in_steps(source: str | Path, folder: str | Path) -> Iterator[None]:
        """As :meth:`import_`, for a caller that has windows to look after; the set is there after the last step."""
        return archive.import_in_steps(Path(source), Path(folder))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the disk does not take becomes one line for the user."""
        try:
            yield
        except OSError as error:
            raise SAMMixError(f"{self.folder}: cannot be written ({error.strerror}); free some disk space") from None
