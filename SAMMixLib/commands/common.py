"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import check_apart
from SAMMixLib.models.registry import find_model
from SAMMixLib.paths import STARTER
from SAMMixLib.progress import Progress

if TYPE_CHECKING:
    from SAMMixLib.inference.segmenter import Segmenter


def add_device_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="precision of the networks"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=STARTER, help="name or folder of a model bundle (default: starter)")
    parser.add_argument("--base-weights", metavar="FILE", help="public weights of a ViT backbone")
    parser.add_argument("--batch-size", type=positive, default=8, help="slices in one batch (default: 8)")
    add_device_options(parser)


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def load_segmenter(options: argparse.Namespace) -> Segmenter:
    from SAMMixLib.inference.segmenter import Segmenter

    return Segmenter.from_bundle(
        options.model,
        options.device,
        options.dtype,
        batch_size=options.batch_size,
        base_weights=options.base_weights,
    )


def add_overwrite_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that SAMMix has not written; never an input"
    )


def check_outputs_apart(options: argparse.Namespace) -> None:
    """Refuse, before any work, to write onto what a command reads.

    Each command names in ``reads`` and ``writes`` which of its options are inputs and outputs.

    Raises:
        SAMMixError: an output is an input by any name, or a file in an input folder; or there is no such model.
    """
    outputs = _paths(options, options.writes)
    if outputs:
        inputs = _paths(options, options.reads)
        for path in outputs:
            check_apart(path, inputs)


def _paths(options: argparse.Namespace, names: Iterable[str]) -> list[Path]:
    """The paths that options name; a model goes by its name, too."""
    found = []
    for name in names:
        value = getattr(options, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        found += [find_model(each) if name == "model" else Path(each) for each in values]
    return found


def check_files(folder: Path, marks: Mapping[str, bytes], overwrite: bool, inputs: Iterable[str | Path]) -> None:
    """Make sure, before the long work, that files can be written into a folder and destroy nothing that is not ours.

    Args:
        folder: made later if it is missing.
        marks: the files' names, each with what a file of this name by us holds.
        overwrite: whether others may be replaced.
        inputs: what is read, and never replaced.

    Raises:
        SAMMixError: the folder cannot be used or is an input; a file is an input, cannot be replaced, or is not ours.
    """
    from SAMMixLib.imaging.writing import check_output_folder, check_replaceable

    inputs = list(inputs)
    check_output_folder(folder, inputs)
    for name, mark in marks.items():
        path = folder / name
        if not os.path.lexists(path):
            continue
        check_replaceable(path, inputs)
        if not overwrite and mark not in path.read_bytes():
            raise SAMMixError(f"{path}: is there and not written by SAMMix; choose another place, or add --overwrite")


def check_report(folder: Path, overwrite: bool, inputs: Iterable[str | Path]) -> None:
    """:func:`check_files` of a report."""
    marks = {"report.html": b"SAMMix", "report.json": b'"volume_ml"', "montage.png": b"PNG", "chart.png": b"PNG"}
    check_files(folder, marks, overwrite, inputs)


def print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"sammix: warning: {warning}", file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress callback that draws one bar a stage, on a terminal only."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def show(stage: str, done: int, total: int) -> None:
        bar = bars.get(stage)
        if bar is None or bar.total != total or done < bar.n:
            bar = bars[stage] = tqdm(total=total, desc=stage, file=sys.stderr, disable=not sys.stderr.isatty())
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            bars.pop(stage)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
