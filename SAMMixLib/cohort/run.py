"""A cohort from its input to its table and page. Dask schedules the work; here it is only handed over, in windows."""

from __future__ import annotations

import itertools
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import dask
from dask.utils import key_split
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.client import FutureCancelledError

from SAMMixLib.cohort.engine import ModelSource
from SAMMixLib.cohort.manifest import Entry, scans_of
from SAMMixLib.cohort.pacs import LEFT_COLUMNS, Export
from SAMMixLib.cohort.page import write_page
from SAMMixLib.cohort.pseudonyms import Pseudonyms, without_identity
from SAMMixLib.cohort.records import (
    BESIDE,
    DONE,
    TRIES,
    TRIES_AT_MOST,
    Settings,
    Stamp,
    new_record,
    stored_records,
)
from SAMMixLib.cohort.results import PARQUET, Rows, row_of, write_left_out, write_tables
from SAMMixLib.cohort.tasks import CohortPlugin, work
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import remove_litter
from SAMMixLib.reports.viewer import ASSETS

NOTES, ROWS = ".export.sqlite", ".rows.jsonl"
WINDOW = 4  # scans handed over for each thread of the cluster, so that no worker waits for the next one
LEAST_WINDOW = 32
WITHOUT_WORKERS = ("NoWorkerError", "NoValidWorkerError")  # their names, for older versions of Dask know one only
TOGETHER = 0.05  # seconds within which results are fetched by one message
PATIENCE = "30s"  # for a scheduler that should be there


class Watcher(Protocol):
    """Is told of each scan as it comes back."""

    def __call__(self, record: dict[str, Any]) -> None: ...


@dataclass
class Summary:
    """What came of a cohort."""

    out: Path
    counts: Counter = field(default_factory=Counter)  # done, failed, and unchanged (of both)
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.out),
            "table": str(self.out / PARQUET),
            "done": self.counts[DONE],
            "failed": self.counts["failed"],
            "unchanged": self.counts["unchanged"],
            "left_out": self.left_out,
        }


@contextmanager
def local_cluster(workers: int, memory: str = "auto") -> Iterator[Client]:
    """Workers on this machine, a process and a scan at a time each, watched over by nannies.

    Args:
        memory: the limit of each worker, as ``4GiB``; a worker beyond it is stopped and started again.
    """
    settings = {
        "distributed.scheduler.allowed-failures": 10 * TRIES_AT_MOST,  # a scan's own count of its starts decides
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.scheduler.no-workers-timeout": "10 minutes",  # else a run waits for ever
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": None,
        "distributed.nanny.pre-spawn-environ.MKL_NUM_THREADS": None,
        "distributed.worker.daemon": False,
        "distributed.logging.distributed": "critical",
        # What Dask notes for its dashboard and for debugging grows for an hour, and costs more than the work of a row.
        "distributed.admin.low-level-log-length": 100,
        "distributed.admin.system-monitor.log-length": 10,
        "distributed.admin.tick.interval": "500ms",
        "distributed.scheduler.dashboard.tasks.task-stream-length": 1000,
        "distributed.worker.profile.enabled": False,
        # A worker keeps the memory of its largest scan for the next one: paused for it, it would wait for ever.
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.target": False,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=memory, processes=True, silence_logs=60,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client


@contextmanager
def running_cluster(address: str) -> Iterator[Client]:
    """A scheduler that runs somewhere, with its workers.

    Raises:
        SAMMixError: nobody answers there.
    """
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise SAMMixError(
            f"{address}: no Dask scheduler answers there ({type(error).__name__}); check it runs"
        ) from None
    with client:
        yield client


def run_cohort(
    source: str | Path, client: Client, *, settings: Settings, model: ModelSource, watch: Watcher | None = None
) -> Summary:
    """Segment every scan of `source` that is not done yet, and write the table and the page of all of them.

    What was done stays whatever happens: each scan has its record, and a run after a fault goes on from there. The
    table and the page are written at the end, also when the run is interrupted.

    Args:
        source: folder of scans, DICOM export, or CSV or Parquet table with a column ``path``.
        client: of a Dask cluster whose workers see the paths of `source`, of the results and of the model.
        watch: told of each record as it comes.

    Raises:
        SAMMixError: bad input, the results cannot be written, or the scheduler is gone.
    """
    source, out = Path(source).resolve(), Path(settings.out).resolve()
    settings = replace(settings, out=str(out))
    if not source.exists():
        raise SAMMixError(f"{source}: no such file or folder")
    hidden = _prepare(out, settings)
    settings = replace(settings, secret=hidden.secret if hidden else "")
    plugin = CohortPlugin(f"sammix-{secrets.token_hex(8)}", settings, model)  # two runs may share a cluster
    summary = Summary(out)
    export, rows = Export(out / NOTES), Rows(out / ROWS)
    whole = False
    try:
        _register(client, plugin)
        entries = scans_of(source, out, export)
        if hidden:
            entries = map(hidden.hide, entries)
        for number, record in results_of(client, entries, plugin):
            rows.add(number, row_of(record))
            summary.counts[record["status"]] += 1
            summary.counts["unchanged"] += not record["ran"]
            if watch:
                watch(record)
        whole = True
    finally:
        if client.status == "running":
            with suppress(Exception):  # Ctrl-C reaches the workers, too: they may be gone, and the table matters more
                client.unregister_worker_plugin(plugin.name)
        if not whole:  # the table of an interrupted run has what earlier runs did, too
            rows.begin_again(map(row_of, stored_records(out)))
        summary.left_out = _finish(out, rows, export, settings, hidden)
    return summary


def threads_of(client: Client) -> int:
    """The threads of all workers together, each of which takes a scan at a time."""
    return sum(cast("dict[str, int]", client.nthreads()).values())


def key_file(out: Path) -> Path:
    """The key of a cohort's pseudonyms lies beside its folder, so that the folder can be handed on."""
    return out.with_name(f"{out.name}.key.csv")


def _prepare(out: Path, settings: Settings) -> Pseudonyms | None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for room in (TRIES, BESIDE):  # what a killed run left
            shutil.rmtree(out / room, ignore_errors=True)
        for folder in (out, out / ASSETS):
            remove_litter(folder)
    except OSError as error:
        raise SAMMixError(f"{out}: cannot be made ({error.strerror}); choose another folder") from None
    return Pseudonyms(key_file(out)) if settings.anonymise else None


def _register(client: Client, plugin: CohortPlugin) -> None:
    try:
        client.register_plugin(plugin)
    except Exception as error:
        raise SAMMixError(f"the workers cannot run SAMMix ({error}); install sammix[cohort] where they run") from None


def _finish(out: Path, rows: Rows, export: Export, settings: Settings, hidden: Pseudonyms | None) -> int:
    """Table, page and the list of what was left; the notes of a run under pseudonyms go, for they hold names."""
    left = export.left_out()
    columns = LEFT_COLUMNS
    if hidden:
        columns = ("patient", "modality", "images", "reason")
        left = (_hidden_row(row, hidden) for row in left)
    try:
        write_tables(rows, out)
        count = write_left_out(left, columns, out)
        write_page(rows, out, viewer=settings.viewer, left_out=count)
    finally:
        rows.remove()
        export.close()
        for room in (TRIES, BESIDE):
            shutil.rmtree(out / room, ignore_errors=True)
        if hidden:
            for notes in out.glob(f"{NOTES}*"):
                notes.unlink()
    return count


def _hidden_row(row: dict[str, Any], hidden: Pseudonyms) -> dict[str, Any]:
    entry = Entry("", "", row["patient"], row["study"], row["series"], row["description"])
    reason = row["reason"].split(" was chosen: ")[-1]  # the other series' name stays out, too
    return {
        "patient": hidden.of("patient", row["patient"]),
        "modality": row["modality"],
        "images": row["images"],
        "reason": without_identity(reason, entry),
    }


@dataclass
class Handed:
    """A scan with the cluster: its number in the cohort, and how often it was handed over."""

    number: int
    entry: Entry
    times: int = 0


def results_of(client: Client, entries: Iterable[Entry], plugin: CohortPlugin) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the record of each scan, as they come. A window of them is with the cluster at a time.

    Half a window is handed over at once, and what came meanwhile is fetched at once: a message costs more than a task.

    Raises:
        SAMMixError: the scheduler is gone.
    """
    found = itertools.starmap(Handed, enumerate(entries))
    waiting: dict[Any, Handed] = {}  # by the task's key
    again: list[Handed] = []
    coming = as_completed()
    window = LEAST_WINDOW
    while True:
        if len(waiting) <= window // 2:
            window = max(LEAST_WINDOW, WINDOW * threads_of(client))  # workers may come and go
            batch = again + list(itertools.islice(found, max(0, window - len(waiting) - len(again))))
            again = []
            if batch:
                futures = _hand_over(client, batch, plugin.name)
                waiting |= {future.key: scan for future, scan in zip(futures, batch, strict=True)}
                coming.update(futures)
                del futures  # whoever holds a future has its result kept by the cluster
        if not waiting:
            return
        for key, outcome in _outcomes(client, _ready(coming)):
            scan = waiting.pop(key)
            if isinstance(outcome, KilledWorker) and scan.times < TRIES_AT_MOST:
                again.append(scan)  # its worker was killed by a neighbour's work, perhaps
            else:
                yield scan.number, _record(outcome, scan.entry, plugin.settings)


def _hand_over(client: Client, batch: list[Handed], plugin: str) -> list[Future]:
    key_split.cache_clear()  # Dask's own notes of the last 100,000 keys
    for scan in batch:
        scan.times += 1
    return client.map(
        work,
        [scan.entry for scan in batch],
        plugin=plugin,
        # Keys that begin alike are one group: the scheduler keeps something of each group for good.
        key=[("scan", plugin, scan.number, scan.times) for scan in batch],
        retries=TRIES_AT_MOST - 1,
        pure=False,
    )


def _ready(coming: as_completed) -> list[Future]:
    """The next one, and those that come soon after it."""
    first = next(coming)
    time.sleep(TOGETHER)
    return [first, *coming.next_batch(block=False)]


def _outcomes(client: Client, futures: list[Future]) -> Iterator[tuple[Any, dict[str, Any] | BaseException]]:
    """The key of each task with what it returned, or with what it failed with.

    Raises:
        SAMMixError: the scheduler is gone.
    """
    try:
        # Of a client that is not asynchronous, what Dask calls "a result or a coroutine" is the result.
        records = cast("dict[Any, Any]", client.gather({future.key: future for future in futures}, errors="skip"))
        for future in futures:
            outcome = records[future.key] or cast("Any", future.exception() or future.result())
            if type(outcome).__name__ in WITHOUT_WORKERS:  # no fault of the scan's
                raise OSError("no worker is left")
            yield future.key, outcome
    except (FutureCancelledError, OSError) as error:
        raise SAMMixError(
            f"Dask's scheduler or workers are gone ({type(error).__name__}); run again to go on"
        ) from None


def _record(outcome: dict[str, Any] | BaseException, entry: Entry, settings: Settings) -> dict[str, Any]:
    if isinstance(outcome, KilledWorker):
        return _failed(entry, settings, "its worker was killed at every try (out of memory, or a crash)")
    if isinstance(outcome, BaseException):
        return _failed(entry, settings, f"{type(outcome).__name__}: {outcome}".splitlines()[0])
    return outcome


def _failed(entry: Entry, settings: Settings, reason: str) -> dict[str, Any]:
    """A record that the client makes, because no worker could."""
    shown = entry.name if settings.anonymise else entry.path or entry.name
    record = new_record(entry.name, Stamp(""), settings) | {"reason": f"{shown}: {reason}", "ran": True}
    if settings.anonymise:
        return record | {"reason": without_identity(record["reason"], entry)}
    return record | {key: value for key, value in asdict(entry).items() if key not in ("name", "files")}
