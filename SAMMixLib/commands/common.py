"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
