"""``sammix cohort INPUT -o OUT``: thousands of scans on Dask, a table of results and a page to review them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from SAMMixLib.commands.common import add_model_options, add_overwrite_option, check_files, positive
from SAMMixLib.errors import SAMMixError

if TYPE_CHECKING:
    from SAMMixLib.cohort.run import Watcher

FORMATS = ("nifti", "nrrd", "segnrrd", "mha", "dicomseg")


def add_command(commands) -> None:
    parser = commands.add_parser("cohort", help="segment thousands of scans, and review them", description=__doc__)
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="folder of scans, DICOM export, or .csv or .parquet with a column path",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder; a run goes on in it")
    parser.add_argument("--format", choices=FORMATS, default="nifti", help="of the masks (default: nifti)")
    parser.add_argument("--measurements", action="store_true", help="with dicomseg: a report (TID 1500) of the volume")
    parser.add_argument("--viewer", action="store_true", help="put the CT into the page, to look at the masks on it")
    parser.add_argument("--anonymise", action="store_true", help="pseudonyms; the key lies beside OUT, in OUT.key.csv")
    parser.add_argument("--deadline", type=float, default=1800, metavar="S", help="seconds for a scan (default: 1800)")
    add_overwrite_option(parser)
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, as tcp://host:8786")
    cluster.add_argument("--workers", type=positive, help="on this machine (default: one a GPU, or two cores each)")
    cluster.add_argument("--threads", type=positive, help="CPU threads of each worker (default: the cores shared out)")
    cluster.add_argument(
        "--memory-limit", default="auto", metavar="SIZE", help="of each worker, as 4GiB (default: auto)"
    )
    add_model_options(parser)
    parser.set_defaults(run=run, reads=("input", "model", "base_weights"), writes=("output",))


WRITTEN = {  # the tables and the page, and what each holds
    "results.csv": b"volume_ml",
    "results.parquet": b"volume_ml",
    "left_out.csv": b"reason",
    "index.html": b"data.js",
}


def run(options: argparse.Namespace) -> dict:
    _check(options)
    _needed()
    from SAMMixLib.cohort.engine import ModelSource
    from SAMMixLib.cohort.manifest import count_scans
    from SAMMixLib.cohort.records import Settings, model_hash
    from SAMMixLib.cohort.run import local_cluster, run_cohort, running_cluster, threads_of
    from SAMMixLib.models.card import open_bundle
    from SAMMixLib.models.registry import find_model

    folder = find_model(options.model).resolve()
    hashed = model_hash(folder)
    settings = Settings(
        str(options.output), options.format, options.viewer, options.measurements, options.deadline,
        open_bundle(folder).name, hashed, options.anonymise,
    )  # fmt: skip
    workers = options.workers or _workers(options.device)
    threads = options.threads or (0 if options.scheduler else max(1, (os.cpu_count() or 1) // workers))
    weights = str(Path(options.base_weights).resolve()) if options.base_weights else None
    model = ModelSource(str(folder), hashed, options.device, options.dtype, options.batch_size, weights, threads)
    cluster = running_cluster(options.scheduler) if options.scheduler else local_cluster(workers, options.memory_limit)
    with cluster as client:
        print(f"{threads_of(client)} scans at a time; dashboard: {client.dashboard_link or 'none'}", file=sys.stderr)
        with live_progress(count_scans(options.input, options.output)) as watch:
            summary = run_cohort(options.input, client, settings=settings, model=model, watch=watch)
    figures = summary.to_json()
    print(
        f"{figures['done']} segmented, {figures['failed']} failed, {figures['unchanged']} of them from an earlier run; "
        f"{figures['left_out']} series left out"
    )
    print(f"table: {figures['table']}; page: {summary.out / 'index.html'}")
    return figures


def _check(options: argparse.Namespace) -> None:
    if not options.input.exists():
        raise SAMMixError(f"{options.input}: no such file or folder")
    if not options.deadline > 0:
        raise SAMMixError("--deadline must be above 0")
    if options.anonymise and options.format == "dicomseg":
        raise SAMMixError("a DICOM SEG names its patient and images; leave --anonymise out, or choose another --format")
    if options.measurements and options.format != "dicomseg":
        raise SAMMixError("--measurements are a DICOM report; add --format dicomseg")
    if os.path.lexists(options.output):
        check_files(options.output, WRITTEN, options.overwrite, [options.input] if options.input.is_file() else [])


def _needed() -> None:
    """Raises SAMMixError where the extra is missing."""
    for package in ("distributed", "pyarrow", "rich", "pydicom"):
        try:
            __import__(package)
        except ModuleNotFoundError:
            raise SAMMixError(f"a cohort needs the package {package}; run: pip install sammix[cohort]") from None


def _workers(device: str) -> int:
    """One for each GPU; on a CPU two cores each, which a scan uses well."""
    if device in ("auto", "cuda"):
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count() if device == "auto" else 1
    return max(1, (os.cpu_count() or 1) // 2)


@contextmanager
def live_progress(total: int | None) -> Iterator[Watcher]:
    """A bar with rate and time left, and a line for each scan that failed; without a terminal the lines only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("scans"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("scans", total=total, rate="")

        def watch(record: dict) -> None:
            if record["status"] == "failed" and record["ran"]:
                bar.console.print(f"sammix: failed: {record['reason']}", markup=False, highlight=False, soft_wrap=True)
            done = bar.tasks[task]
            speed = done.finished_speed or done.speed
            bar.update(task, advance=1, rate=f"{60 * speed:.1f} a minute" if speed else "")

        yield watch
