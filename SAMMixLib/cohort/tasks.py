"""What a worker does with one scan: read, segment, write, and say what came of it. It never takes the others down."""

from __future__ import annotations

import faulthandler
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin, get_worker

from SAMMixLib.cohort.engine import ModelSource, reading, versions
from SAMMixLib.cohort.manifest import Entry
from SAMMixLib.cohort.pseudonyms import without_identity
from SAMMixLib.cohort.records import (
    BESIDE,
    DONE,
    FAILED,
    MASKS,
    SUFFIXES,
    THUMBNAILS,
    TRIES_AT_MOST,
    VIEWER,
    Place,
    Settings,
    Tries,
    is_settled,
    new_record,
    output_hashes,
    read_record,
    stamp_of,
    with_hash,
    write_record,
)
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import check_apart
from SAMMixLib.progress import Progress


class PastDeadline(SAMMixError):
    """The scan took longer than it may."""


class CohortPlugin(WorkerPlugin):
    """Keeps the model of a cohort warm in each worker. It is loaded with the first scan that needs it."""

    idempotent = True

    def __init__(self, name: str, settings: Settings, source: ModelSource) -> None:
        self.name, self.settings, self.source = name, settings, source

    def setup(self, worker: Any) -> None:
        from SAMMixLib.process import tune_process

        tune_process()
        self._worker = worker.name
        self._lock = threading.Lock()  # a worker with several threads has one model all the same
        self._segmenter = None

    def load(self) -> Any:
        if self._segmenter is None:
            self._segmenter = self.source.load(self._worker)
        return self._segmenter

    def work(self, entry: Entry) -> dict[str, Any]:
        with self._lock:
            return process_scan(entry, self.settings, self.load) | {"worker": str(self._worker)}


def work(entry: Entry, plugin: str) -> dict[str, Any]:
    """The task: one scan by the plugin of this worker."""
    own = get_worker().plugins[plugin]
    assert isinstance(own, CohortPlugin)
    return own.work(entry)


def process_scan(entry: Entry, settings: Settings, load: Callable[[], Any]) -> dict[str, Any]:
    """The scan's record: the old one where nothing has changed (``ran`` is False), or a new one, written last.

    Raises:
        Exception: what nobody has foreseen, while there are tries left; Dask runs the task again then.
    """
    place = Place(Path(settings.out), entry.name)
    tries = Tries(place)
    record = new_record(entry.name, stamp_of([]), settings)
    try:
        files = entry.sources()
        stamp = stamp_of(files, settings.secret)
        old = read_record(place)
        if old is not None:
            stamp = _known_stamp(stamp, old, files, settings)
            if _same_input(stamp, old) and is_settled(old, settings):
                tries.end()
                return old | {"ran": False}
        record = new_record(entry.name, stamp, settings)
        refused = tries.begin()
        if refused:
            record |= {"reason": f"{_shown(entry, settings)}: {refused}"}
        else:
            if not stamp.sha256:
                stamp = with_hash(stamp, files, settings.secret)
            record["input"] = asdict(stamp)
            segmenter = load()
            with deadline(settings.deadline, tries.path) as progress:
                record = _segmented(entry, settings, record, segmenter, progress)
    except SAMMixError as error:
        record |= {"reason": str(error), "final": isinstance(error, Refused)}
    except Exception as error:
        if tries.count < TRIES_AT_MOST:
            raise
        record |= {"reason": f"{_shown(entry, settings)}: {type(error).__name__}: {error}".splitlines()[0]}
    record |= {"tries": max(1, tries.count), "finished": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    if settings.anonymise:
        record["reason"] = without_identity(record["reason"], entry)
        record["warnings"] = [without_identity(warning, entry) for warning in record["warnings"]]
    else:
        record |= {"path": entry.path, "patient": entry.patient, "study": entry.study, "series": entry.series}
        record |= {"description": entry.description}
    return _kept(place, record, tries) | {"ran": True}


class Refused(SAMMixError):
    """The scan is refused for what it is, and would be each time."""


def _shown(entry: Entry, settings: Settings) -> str:
    return entry.name if settings.anonymise else entry.path or entry.name


def _same_input(stamp: Any, old: dict[str, Any]) -> bool:
    return bool(stamp.sha256) and stamp.sha256 == old["input"]["sha256"]


def _known_stamp(stamp: Any, old: dict[str, Any], files: list[Path], settings: Settings) -> Any:
    """With the content's hash: the old one where sizes and times of change are the same, else reckoned anew."""
    if stamp.facts == old["input"]["facts"] and old["input"]["sha256"]:
        return replace(stamp, sha256=old["input"]["sha256"])
    return with_hash(stamp, files, settings.secret)


def _kept(place: Place, record: dict[str, Any], tries: Tries) -> dict[str, Any]:
    """Write the record and take the count away; where the disk takes no more, the record says so and is not kept."""
    try:
        write_record(place, record)
        tries.end()
    except (SAMMixError, OSError) as error:
        record = record | {"status": FAILED, "final": False, "reason": record["reason"] or str(error)}
    return record


@contextmanager
def deadline(seconds: float, note: Path) -> Iterator[Progress]:
    """A progress callback that raises :class:`PastDeadline`; and the end of the process where nobody calls it.

    The second is faulthandler's own thread, which needs no lock of Python's: it stops a reader that hangs in C, too,
    and leaves the stack in `note`. The nanny starts a new worker.
    """
    end = time.monotonic() + seconds

    def check(stage: str, done: int, total: int) -> None:
        if time.monotonic() > end:
            raise PastDeadline(f"took longer than its deadline of {seconds:g} s; give --deadline more")

    with note.open("a") as file:
        faulthandler.dump_traceback_later(seconds * 1.2 + 1, exit=True, file=file)
        try:
            yield check
        finally:
            faulthandler.cancel_dump_traceback_later()


def _segmented(
    entry: Entry, settings: Settings, record: dict[str, Any], segmenter: Any, progress: Progress
) -> dict[str, Any]:
    """The record of a scan that was segmented and written.

    Raises:
        SAMMixError: Refused where it is the scan's fault, else the disk's, or the time is over.
    """
    from SAMMixLib.cohort.figures import figures_of

    started = time.perf_counter()
    check_apart(Place(Path(settings.out), entry.name).at(MASKS, SUFFIXES[settings.format]), entry.sources())
    shown = entry.name if settings.anonymise else ""
    try:
        with reading(entry, shown) as volume:
            progress("read", 1, 1)
            result = segmenter.segment(volume, progress)
    except PastDeadline as error:
        raise PastDeadline(f"{_shown(entry, settings)}: {error}") from None
    except SAMMixError as error:
        raise Refused(str(error)) from None
    outputs = _write_outputs(entry, settings, segmenter, volume, result)
    return record | {
        "status": DONE,
        "outputs": output_hashes(Path(settings.out), outputs),
        "warnings": list(result.warnings),
        "seconds": round(time.perf_counter() - started, 3),
        "versions": versions(),
        **figures_of(result),
    }


def _write_outputs(entry: Entry, settings: Settings, segmenter: Any, volume: Any, result: Any) -> list[Path]:
    """Mask, thumbnail and what else is wanted: made in a folder beside, then moved, the mask last."""
    from SAMMixLib.cohort.thumbnails import write_thumbnail
    from SAMMixLib.imaging.writing import write_mask
    from SAMMixLib.reports.viewer import write_viewer_scan

    out, suffix = Path(settings.out), SUFFIXES[settings.format]
    place = Place(out, entry.name)
    beside = out / BESIDE / secrets.token_hex(8)
    mask = volume.axial().to_grid(result.mask)
    made: dict[Path, Path] = {}
    try:
        beside.mkdir(parents=True)
        made[beside / "thumbnail.png"] = place.at(THUMBNAILS, ".png")
        write_thumbnail(volume, mask, beside / "thumbnail.png", with_ct=settings.viewer)
        if settings.viewer:
            made[beside / "scan.js"] = place.at(VIEWER, ".js")
            write_viewer_scan(volume, mask, beside / "scan.js", key=entry.name)
        if settings.format == "dicomseg":
            made |= _write_dicom(entry, settings, segmenter, mask, beside)
        else:
            made[beside / f"mask{suffix}"] = place.at(MASKS, suffix)
            write_mask(mask, beside / f"mask{suffix}", structure=segmenter.structure)
        for source, target in made.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    except OSError as error:
        raise SAMMixError(
            f"{out}: the results of {entry.name} cannot be written ({error.strerror or error}); free some disk space"
        ) from None
    except SAMMixError as error:
        raise SAMMixError(str(error).replace(str(beside), str(place.at(MASKS, "")))) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return list(made.values())


def _write_dicom(entry: Entry, settings: Settings, segmenter: Any, mask: Any, beside: Path) -> dict[Path, Path]:
    from SAMMixLib.imaging.dicom_export import write_measurements, write_segmentation

    place = Place(Path(settings.out), entry.name)
    sources = entry.sources()
    target = beside / "mask.dcm"
    write_segmentation(mask, target, sources, segmenter.structure, segmenter.name)
    made = {target: place.at(MASKS, ".dcm")}
    if settings.measurements:
        write_measurements(target, beside / "measurements.dcm", sources)
        made[beside / "measurements.dcm"] = place.at(MASKS, ".sr.dcm")
    return made
