"""``sammix finetune SET``: a better model for one's own scanner, from a training set of a few slices."""

from __future__ import annotations

import argparse
from pathlib import Path

from SAMMixLib.commands.common import add_device_options, progress_bar
from SAMMixLib.config import FINE_TUNING
from SAMMixLib.errors import SAMMixError


def add_command(commands) -> None:
    parser = commands.add_parser("finetune", help="train on slices of your own", description=__doc__)
    parser.add_argument("set", type=Path, metavar="SET", help="a training set, see: sammix collect")
    parser.add_argument("--model", default="starter", help="where to go on from (default: starter)")
    parser.add_argument("--preset", metavar="NAME", help=f"{', '.join(FINE_TUNING)} (default: quick)")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", help="run folder; a killed run goes on there")
    parser.add_argument("--name", help="keep the new model under this name, if it is better")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-weights", type=Path, metavar="FILE", help="public weights of a ViT backbone")
    add_device_options(parser)
    parser.set_defaults(run=run, reads=("set", "model", "base_weights"), writes=("output",))


def run(options: argparse.Namespace) -> dict:
    from SAMMixLib.inference.device import Runtime, choose_device
    from SAMMixLib.models.card import dice_text
    from SAMMixLib.models.registry import import_model
    from SAMMixLib.training.finetuning import FineTuning, fine_tune

    if options.output is None:
        raise SAMMixError("give the run folder with -o RUN; a run that was killed goes on there")
    print(f"device: {choose_device(options.device)[1]}")
    how = FineTuning(options.preset or "quick", options.seed, options.base_weights)
    with progress_bar() as progress:
        runtime = Runtime.choose(options.device, options.dtype).told(progress)
        tuned = fine_tune(options.set, options.model, options.output, how, runtime)
    print(
        f"{tuned.masks} masks, {tuned.labels} image-level labels; on {len(tuned.held_out)} slices held out Dice "
        f"{dice_text(tuned.before)} before, {dice_text(tuned.after)} now (prompt source cam); bundle: {tuned.bundle}"
    )
    if tuned.warning:
        print(tuned.warning)
    elif options.name:
        print(f"kept as {import_model(tuned.bundle, options.name).folder.name}")
    figures = {"before": tuned.before, "after": tuned.after, "better": tuned.better, "seconds": tuned.seconds}
    return {"bundle": str(tuned.bundle), "prompt": "cam", **figures}
