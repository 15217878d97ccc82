"""``sammix experiment``: the paper's tables, run again."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from SAMMixLib.commands.common import (
    add_device_options,
    add_overwrite_option,
    check_files,
    positive,
    progress_bar,
)
from SAMMixLib.errors import SAMMixError


def add_command(commands) -> None:
    parser = commands.add_parser("experiment", help="compare SAM-Mix with others by a protocol", description=__doc__)
    parser.add_argument(
        "--protocol", default="desk", metavar="NAME", help="desk (two cores), paper (GPU), or a JSON file"
    )
    parser.add_argument("--data-root", type=Path, default=Path(), metavar="DIR", help="where the data's paths start")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="run folders and tables")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these: SAM-Mix, SAM-Mix-50, sam-mix-50-seed-0")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="runs at the same time (default: 1)")
    parser.add_argument("--base-weights", type=Path, metavar="FILE", help="public weights of a ViT backbone")
    parser.add_argument("--list", action="store_true", help="say which runs are done, and run nothing")
    parser.add_argument("--cell", help=argparse.SUPPRESS)  # one run, in this process
    add_overwrite_option(parser)
    add_device_options(parser)
    parser.set_defaults(run=run, reads=("data_root", "base_weights"), writes=("output",))


WRITTEN = {  # the tables and plots, and what each holds
    "table1.md": b"protocol",
    "table1.csv": b"protocol",
    "table2.md": b"protocol",
    "table2.csv": b"protocol",
    "boxplots_cam.png": b"PNG",
    "boxplots_oracle.png": b"PNG",
    "learning_curve.png": b"PNG",
    "examples.png": b"PNG",
}


def run(options: argparse.Namespace) -> dict:
    if os.path.lexists(options.output) and not (options.list or options.cell):
        check_files(options.output, WRITTEN, options.overwrite, [])
    from SAMMixLib.experiments.protocol import read_protocol
    from SAMMixLib.experiments.runner import cell_command, chosen_cells, run_cells, write_results
    from SAMMixLib.experiments.runs import read_result

    protocol = read_protocol(options.protocol)
    folder = options.output.resolve()
    if options.cell:
        return _one(options, protocol, folder)
    cells = chosen_cells(protocol, options.rows)
    if options.list:
        for cell in cells:
            print(f"{cell.key}: {'done' if read_result(folder, cell) else 'to do'}")
        return {"runs": len(cells)}
    given = ["--device", options.device, "--dtype", options.dtype]
    if options.base_weights:
        given += ["--base-weights", str(options.base_weights)]

    def command(cell):
        return cell_command(options.protocol, cell, options.data_root.resolve(), folder, given)

    failed = run_cells(cells, folder, command, options.jobs, lambda line: print(line, flush=True))
    written = write_results(protocol, folder)
    for path in written:
        print(path)
    if failed:
        raise SAMMixError(f"{len(failed)} of {len(cells)} runs failed; see {folder / failed[0].key / 'log.txt'}")
    return {"runs": len(cells), "outputs": [str(path) for path in written]}


def _one(options: argparse.Namespace, protocol, folder: Path) -> dict:
    from SAMMixLib.experiments.runner import chosen_cells
    from SAMMixLib.experiments.runs import Workplace, run_cell
    from SAMMixLib.inference.device import Runtime

    (cell,) = chosen_cells(protocol, [options.cell])
    with progress_bar() as progress:
        runtime = Runtime.choose(options.device, options.dtype).told(progress)
        place = Workplace(options.data_root, folder, runtime, options.base_weights)
        result = run_cell(protocol, cell, place, print)
    return {key: result[key] for key in ("row", "seed", "labelled_slices", "processor_seconds")}
