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
    collect,
    crossvalidate,
    demo,
    evaluate,
    experiment,
    models,
    segment,
    suggest,
    train,
)
from SAMMixLib.errors import Cancelled, SAMMixError
from SAMMixLib.runtime import tune_process

COMMANDS = (segment, collect, suggest, train, crossvalidate, evaluate, experiment, models, demo, bench)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    tune_process()
    options = _parser().parse_args(arguments)
    try:
        figures = options.run(options)
    except SAMMixError as error:
        print(f"sammix: error: {error}", file=sys.stderr)
        return 2
    except (Cancelled, KeyboardInterrupt):
        print("sammix: cancelled", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        print(f"sammix: error: the package {error.name} is not installed; run: pip install sammix", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"sammix: error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(figures, allow_nan=False))
    return 0


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
