"""The command ``sammix``. Exit status: 0 done, 1 internal error, 2 bad usage or bad input, 130 cancelled."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from SAMMixLib import __version__
from SAMMixLib.commands import (
    bench,
    cohort,
    collect,
    crossvalidate,
    demo,
    evaluate,
    experiment,
    finetune,
    models,
    segment,
    suggest,
    train,
)
from SAMMixLib.commands.common import check_outputs_apart
from SAMMixLib.errors import Cancelled, SAMMixError
from SAMMixLib.process import make_streams_safe, tune_process

COMMANDS = (
    segment, cohort, collect, suggest, train, crossvalidate, finetune, evaluate, experiment, models, demo, bench
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    tune_process()
    make_streams_safe()
    try:
        options = _parser().parse_args(arguments)
        check_outputs_apart(options)
        figures = options.run(options)
        if options.json:
            print(json.dumps(figures, allow_nan=False))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Cancelled, KeyboardInterrupt):
        print("sammix: cancelled", file=sys.stderr)
        return 130
    except Exception as error:
        status, message = _explained(error)
        if status == 1 and "SAMMIX_TRACEBACK" in os.environ:
            raise
        print(f"sammix: error: {message}", file=sys.stderr)
        return status
    return 0


def _explained(error: Exception) -> tuple[int, str]:
    """Exit status and one line for the user."""
    if isinstance(error, SAMMixError):
        return 2, " ".join(str(error).split("\n"))
    if _is_memory(error):
        return 2, "not enough memory; close other programs, or use a machine with more"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("SAMMixLib"):
        return 2, f"the package {error.name} is not installed; run: pip install sammix"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 2, f"{where}{error.strerror or error}"
    said = " ".join(str(error).split())[:200]
    return 1, f"internal error: {type(error).__name__}: {said} (set SAMMIX_TRACEBACK=1 to see where)"


def _is_memory(error: Exception) -> bool:
    """Memory that ran out: Python's, the loader's while libraries are mapped, or an allocation of torch's."""
    told = str(error).lower()
    signs = (
        "cannot allocate memory",
        "can't allocate memory",
        "failed to map segment",
        "not enough memory",
        "bad_alloc",
    )
    loading = isinstance(error, ImportError | OSError | RuntimeError | SystemError)
    return isinstance(error, MemoryError) or (loading and any(sign in told for sign in signs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sammix", description="SAM-Mix: liver segmentation in CT without clicks. For research, not for diagnosis."
    )
    parser.add_argument("--version", action="version", version=f"sammix {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_command(commands)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="end the output with one JSON line of figures")
    return parser
