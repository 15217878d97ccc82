"""What goes into a training set at a click: slices with their mask, slices without the structure, ranges of labels."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from SAMMixLib.data.training_set import CARD, Entry, LabelledSlices, TrainingSet
from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.protocols import Source
from SAMMixLib.module.session.errors import attempt
from SAMMixLib.module.session.pictures import slice_picture
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.module.texts import scan_name
from SAMMixLib.module.texts import slices as slices_text
from SAMMixLib.paths import training_sets_folder
from SAMMixLib.structure import LIVER, Structure

IN_A_STEP = 2  # slices that are written before the windows get their turn
THUMBNAIL = 56  # pixels


class Collector:
    """The open training set, and the work that fills it in short steps: each is on the disk when it is done.

    Attributes:
        entries: the slices of the set as they count now.
        changes: how often `entries` has changed.
        message, error: what came of the last click, for the user; one of them is empty.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self.set: TrainingSet | None = None
        self.entries: list[Entry] = []
        self.changes = 0
        self.message = self.error = ""
        self._work: deque[Iterator[None]] = deque()
        self._thumbnails: dict[tuple[Path, int], np.ndarray] = {}
        last = settings.get("training_set", "")
        if last and (Path(last) / CARD).is_file():
            self.open(Path(last))
        elif folders := self.folders():
            self.open(folders[0])

    @property
    def structure(self) -> Structure:
        """What the masks show; the liver where no set is open yet."""
        return self.set.structure if self.set else LIVER

    # Sets

    def folders(self) -> list[Path]:
        """The training sets that can be chosen: the user's own, and the one that is open wherever it lies."""
        found = {card.parent for card in training_sets_folder().glob(f"*/{CARD}") if card.parent.name[0] != "."}
        return sorted(found | ({self.set.folder} if self.set else set()), key=lambda folder: folder.name.lower())

    def open(self, folder: Path) -> None:
        self._guarded(lambda: self._take(TrainingSet.open(folder)))

    def create(self, name: str, structure: Structure = LIVER) -> None:
        """Make a set among the user's own, and open it."""

        def make() -> None:
            folder = training_sets_folder() / name.strip()
            if not name.strip() or folder.parent != training_sets_folder() or folder.name[0] == ".":
                raise SAMMixError(f"{name!r}: not usable as a name; use letters, digits and spaces")
            training_sets_folder().mkdir(parents=True, exist_ok=True)
            self._take(TrainingSet.create(folder, structure, name.strip()))

        self._guarded(make)

    def import_(self, archive: Path) -> None:
        """Unpack an exported set among the user's own, and open it."""

        def steps() -> Iterator[None]:
            folder = training_sets_folder() / archive.stem
            self.message = f"Reading {archive.name}"
            yield from TrainingSet.import_in_steps(archive, folder)
            self._take(TrainingSet.open(folder))
            self.message = f"Opened {archive.name}."

        self._work.append(steps())

    def export(self, target: Path) -> None:
        """Write the open set as one zip file."""

        opened = self.set
        if opened is None:
            return

        def steps() -> Iterator[None]:
            self.message = f"Writing {target.name}"
            yield from opened.export_in_steps(target)
            self.message = f"Wrote {target.name}."

        self._work.append(steps())

    # Slices

    def take(self, source: Source, ks: Iterable[int], how: str) -> None:
        """Add slices with their mask as it stands; one without any of the structure counts as a slice without it."""
        ks = sorted(ks)

        def begin(opened: TrainingSet) -> Iterator[None]:
            masks = source.masks(ks, opened.structure)
            labels = {k: bool(mask.any()) for k, mask in zip(ks, masks, strict=True)}
            return self._add(opened, source, labels, how, masks)

        self._begin(begin)

    def identify(self, source: Source) -> None:
        """Find the name of a scan, by which :meth:`labelled` knows its slices again."""
        if not source.patient:
            self._work.append(source.identify())

    def exclude(self, source: Source, k: int) -> None:
        """Add a slice as one without the structure, whatever the segment holds there."""
        self._begin(lambda opened: self._add(opened, source, {k: False}, "said to be without"))

    def label(self, source: Source, first: int, last: int, rest: bool, leave_out: Iterable[int] | None = None) -> None:
        """Image-level labels: the structure is in slices first to last, and nowhere else if `rest` is to be labelled.

        Slices that have a mask in the set keep it. Those to leave out get no label; by default these are the slices
        elsewhere that show the structure in the segment.
        """
        low, high = min(first, last), max(first, last)

        def steps(opened: TrainingSet) -> Iterator[None]:
            if low < 0 or high >= source.total:
                raise SAMMixError(f"{source.name} has slices 0 to {source.total - 1}, not {low} to {high}")
            labels = {k: low <= k <= high for k in (range(source.total) if rest else range(low, high + 1))}
            without = leave_out
            if without is None:
                others = [k for k, inside in labels.items() if not inside]
                masks = source.masks(others, opened.structure)
                without = [k for k, mask in zip(others, masks, strict=True) if mask.any()]
            for k in without:
                labels.pop(k, None)
            yield from self._add(opened, source, labels, "range")
            if without:
                self.message += f" Left out: {slices_text(sorted(without))}, where the segment says otherwise."

        self._begin(steps)

    def set_active(self, entries: Iterable[Entry], active: bool) -> None:
        """Tick or untick slices: only ticked ones are trained on."""

        opened = self.set
        if opened is None:
            return

        def write() -> None:
            opened.set_active([(entry.patient, entry.slice) for entry in entries], active)
            self._read(opened)

        self._guarded(write)

    def labelled(self, source: Source) -> list[int]:
        """The ticked slices of an identified scan whose outline is known: with a mask, or without the structure."""
        return [entry.slice for entry in self.entries if entry.patient == source.patient and entry.active
                and (entry.has_mask or not entry.label)]  # fmt: skip

    def thumbnail(self, entry: Entry) -> np.ndarray | None:
        """uint8 [rows, columns, 3]; reads the slice the first time. None where it cannot be read."""
        where = (entry.file, entry.row)
        if where not in self._thumbnails:
            if self.set is None:
                return None
            try:
                image, mask = self.set.load(entry)
            except SAMMixError as error:
                self.error = str(error)
                return None
            shown = [(mask, self.set.structure.color)] if entry.has_mask else []
            self._thumbnails[where] = slice_picture(image, shown, THUMBNAIL, entry.spacing)
        return self._thumbnails[where]

    def dismiss(self) -> None:
        """Another scan is chosen: what came of the last click was said of the one before."""
        self.message = self.error = ""

    @property
    def busy(self) -> bool:
        return bool(self._work)

    def scan_name(self, patient: str) -> str:
        """The name of the volume that a patient's slices are from, as people know it."""
        found = (entry.provenance.get("volume", "") for entry in self.entries if entry.patient == patient)
        return next(filter(None, found), "") or scan_name(patient)

    def tick(self) -> None:
        """Do one short step of what there is to do."""
        if self._work:
            work = self._work[0]
            self._guarded(lambda: next(work, self) is self and self._work.popleft(), work)

    # Inside

    def _begin(self, work: Callable[[TrainingSet], Iterator[None]]) -> None:
        """Begin work on the set that is open now; one is made where there is none."""
        if self.set is None:
            self.create(LIVER.name)
        opened = self.set
        if opened is not None:
            self.message = ""
            self._guarded(lambda: self._work.append(work(opened)))

    def _add(
        self, target: TrainingSet, source: Source, labels: dict[int, bool], how: str, masks: np.ndarray | None = None
    ) -> Iterator[None]:
        if not source.patient:
            yield from source.identify()
        ks, kept = list(labels), []
        if how == "range":
            known = {entry.slice: entry for entry in target.entries() if entry.patient == source.patient}
            kept = [k for k in ks if k in known and known[k].has_mask]
            ks = [k for k in ks if not (k in known and (known[k].has_mask or known[k].label == labels[k]))]
        provenance = source.provenance() | {"how": how}
        for start in range(0, len(ks), IN_A_STEP):
            some = ks[start : start + IN_A_STEP]
            target.add(
                LabelledSlices(
                    source.patient,
                    some,
                    source.images(some),
                    source.spacing,
                    [labels[k] for k in some],
                    None if masks is None else masks[start : start + IN_A_STEP],
                    provenance,
                )
            )
            self.message = f"Writing, {start + len(some)} of {len(ks)} slices"
            yield
        if target is self.set:
            self._read(target)
        self.message = _told(ks, labels, kept, target.structure.name)

    def _take(self, opened: TrainingSet) -> None:
        self.set = opened
        self._settings.set("training_set", str(opened.folder))
        self._thumbnails.clear()
        self._read(opened)

    def _read(self, opened: TrainingSet) -> None:
        self.entries = opened.entries()
        self.changes += 1

    def _guarded(self, action: Callable[[], object], work: Iterator[None] | None = None) -> None:
        """Do it; whatever it raises becomes the one line that the user sees, and ends this work."""
        self.error = attempt(action, "the training set")
        if not self.error:
            return
        self.message = ""
        if work in self._work:
            self._work.remove(work)


def kind(entry: Entry, structure: str) -> str:
    """What is known of a slice, in the words of the list."""
    if not entry.label:
        return f"no {structure}"
    return f"{structure} with mask" if entry.has_mask else f"{structure} by label"


def summary(entries: Iterable[Entry], structure: str) -> str:
    """How many slices of each kind are ticked, of how many scans."""
    active = [entry for entry in entries if entry.active]
    if not active:
        return "Nothing collected yet."
    counts = Counter(kind(entry, structure) for entry in active)
    scans = len({entry.patient for entry in active})
    listed = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    return f"{listed}, from {scans} scan{'s' * (scans > 1)}"


def _told(ks: list[int], labels: dict[int, bool], kept: list[int], structure: str) -> str:
    parts = []
    for shown, words in ((True, f"with {structure}"), (False, f"without {structure}")):
        if some := [k for k in ks if labels[k] is shown]:
            parts.append(f"{slices_text(some)} {words}")
    told = f"Taken: {'; '.join(parts)}." if parts else "Nothing new to take."
    return told + (f" {slices_text(kept).capitalize()} kept the mask." if kept else "")
