"""All cells of a protocol, one after another or several at once; what is done is never run again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.examples import FILE, montage
from SAMMixLib.experiments.outputs import write_outputs
from SAMMixLib.experiments.protocol import Cell, Protocol
from SAMMixLib.experiments.runs import read_result
from SAMMixLib.reports.report import write_together

Say = Callable[[str], None]


def chosen_cells(protocol: Protocol, rows: Sequence[str] | None) -> list[Cell]:
    """The protocol's cells, those of the named rows only.

    Raises:
        SAMMixError: no row has that name.
    """
    cells = protocol.cells()
    names = {name for cell in cells for name in (cell.row.name, cell.name, cell.key)}
    for row in rows or ():
        if row not in names:
            raise SAMMixError(f"protocol {protocol.name} has no row {row}; it has {', '.join(sorted(names))}")
    return [cell for cell in cells if not rows or {cell.row.name, cell.name, cell.key} & set(rows)]


def run_cells(
    cells: Sequence[Cell], folder: Path, command: Callable[[Cell], list[str]], jobs: int, say: Say
) -> list[Cell]:
    """Run each cell without a result in a process of its own, `jobs` at once; gives back those that failed.

    The cores are shared out evenly. What a cell prints stands in ``log.txt`` of its folder.
    """
    todo = [cell for cell in cells if read_result(folder, cell) is None]
    say(f"{len(cells) - len(todo)} of {len(cells)} runs are done")
    started, done = time.monotonic(), 0
    threads = str(max(1, (os.cpu_count() or 1) // jobs))

    def run(cell: Cell) -> bool:
        own = folder / cell.key
        own.mkdir(parents=True, exist_ok=True)
        with (own / "log.txt").open("a", encoding="utf-8") as log:
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            return subprocess.run(command(cell), stdout=log, stderr=log, env=environment).returncode == 0

    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        for cell, fine in zip(todo, pool.map(run, todo), strict=True):
            done += 1
            left = (time.monotonic() - started) / done * (len(todo) - done) / 60
            state = "done" if fine else f"failed, see {folder / cell.key / 'log.txt'}"
            say(f"{cell.name}, seed {cell.seed}: {state}; {len(todo) - done} to go, about {left:.0f} min")
            failed += [] if fine else [cell]
    return failed


def write_results(protocol: Protocol, folder: Path) -> list[Path]:
    """Tables, plots and example slices of all runs that are done."""
    results = [(cell, read_result(folder, cell)) for cell in protocol.cells()]
    done = [(cell, result) for cell, result in results if result is not None]
    if not done:
        return []
    written = write_outputs([result for _, result in done], folder)
    # One line for each row, its first seed's; a cell that an older version ran kept no examples.
    shown = {cell.name: folder / cell.key for cell, _ in reversed(done) if (folder / cell.key / FILE).is_file()}
    if shown:
        write_together(folder, {"examples.png": montage(list(reversed(shown.items())))})
        written.append(folder / "examples.png")
    return written


def cell_command(protocol: str, cell: Cell, data_root: Path, folder: Path, options: Sequence[str]) -> list[str]:
    """What runs one cell in its own process."""
    head = [sys.executable, "-m", "SAMMixLib", "experiment", "--protocol", protocol, "--cell", cell.key]
    return [*head, "--data-root", str(data_root), "-o", str(folder), *options]
