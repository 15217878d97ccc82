"""``sammix train``: a model from image-level labels and a few masks."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from SAMMixLib.commands.common import add_device_options, positive, progress_bar
from SAMMixLib.config import FINE_TUNING, PRESETS, Config, read_config
from SAMMixLib.errors import SAMMixError

if TYPE_CHECKING:
    from SAMMixLib.training.recipe import Recipe


def add_command(commands) -> None:
    parser = commands.add_parser("train", help="train a model", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--data", nargs="+", metavar="PATH", help="slice data sets: .npz, .hdf5, LiTS, TotalSegmentator, pairs"
    )
    what.add_argument("--recipe", type=Path, metavar="FILE", help="a recipe such as Resources/recipes/starter.json")
    what.add_argument("--slices", type=Path, metavar="SET", help="a training set: a model goes on from --model")
    what.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    what.add_argument("--print-config", action="store_true", help="print the config as JSON and stop")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", help="run folder, made new")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where a recipe's relative paths start")
    parser.add_argument(
        "--preset", choices=[*PRESETS, *FINE_TUNING], help="default: starter; with --slices quick (or full)"
    )
    parser.add_argument("--model", default="starter", help="with --slices: where to go on from (default: starter)")
    parser.add_argument("--name", help="with --slices: keep the new model under this name, if it is better")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a config as JSON instead of a preset")
    parser.add_argument("--hu-range", nargs=2, type=float, default=(-40.0, 160.0), metavar=("LO", "HI"),
                        help="HU of 0 and 255 in uint8 .npz images (default: -40 160)")  # fmt: skip
    parser.add_argument("--validation", nargs="+", default=[], metavar="PATIENT", help="default: a fifth, by the seed")
    parser.add_argument(
        "--labelled", type=positive, metavar="N", help="use N masks, spread over the patients by the seed"
    )
    parser.add_argument(
        "--labelled-list", type=Path, metavar="CSV", help="use the masks of these: columns patient, slice"
    )
    parser.add_argument("--epochs", type=positive)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--base-weights", type=Path, metavar="FILE", help="public weights of a ViT backbone")
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> dict:
    if options.print_config:
        config = _config(options)
        print(json.dumps(config.to_dict(), indent=1))
        return config.to_dict()

    from SAMMixLib.inference.device import choose_device, choose_dtype
    from SAMMixLib.training.recipe import FILE, read_recipe
    from SAMMixLib.training.trainer import Trainer

    if options.slices:
        return _fine_tune(options)
    if options.resume:
        folder = options.resume
        recipe = read_recipe(folder / FILE)
    else:
        recipe = _recipe(options)
    train, validation, labelled = recipe.read()
    device, reason = choose_device(options.device)
    if not options.resume:
        folder = _new_folder(options.output)
    dtype = choose_dtype(device, options.dtype)
    try:
        trainer = Trainer(
            recipe.config, train, validation, folder, recipe.record, labelled, device, dtype, options.base_weights
        )
    except BaseException:
        if not options.resume:
            folder.rmdir()  # still empty: a run that cannot start leaves nothing
        raise
    if not options.resume:
        recipe.save(folder)
    counts = ", ".join(f"{name} {count:,}" for name, count in trainer.trainable.items())
    print(f"device: {reason}; trainable parameters: {counts}")
    print(f"{len(train)} slices with image-level labels, {len(trainer.labelled)} masks, {trainer.steps} steps")
    trainer.resume()
    with progress_bar() as progress:
        bundle = trainer.run(progress, print)
    print(
        f"best epoch: score {trainer.state.best_score:.4f} on validation patients (prompt source cam); bundle: {bundle}"
    )
    return {"bundle": str(bundle), "score": trainer.state.best_score, "prompt": "cam"}


def _fine_tune(options: argparse.Namespace) -> dict:
    from SAMMixLib.inference.device import choose_device, choose_dtype
    from SAMMixLib.models.registry import import_model
    from SAMMixLib.training.finetuning import fine_tune

    if options.output is None:
        raise SAMMixError("give the run folder with -o RUN; a run that was killed goes on there")
    device, reason = choose_device(options.device)
    print(f"device: {reason}")
    with progress_bar() as progress:
        tuned = fine_tune(
            options.slices,
            options.model,
            options.output,
            options.preset or "quick",
            options.seed or 0,
            device,
            choose_dtype(device, options.dtype),
            progress,
            base_weights=options.base_weights,
        )
    print(
        f"{tuned.masks} masks, {tuned.labels} image-level labels; on {len(tuned.held_out)} slices held out Dice "
        f"{tuned.before:.3f} before, {tuned.after:.3f} now (prompt source cam); bundle: {tuned.bundle}"
    )
    if tuned.warning:
        print(tuned.warning)
    elif options.name:
        print(f"kept as {import_model(tuned.bundle, options.name).folder.name}")
    figures = {"before": tuned.before, "after": tuned.after, "better": tuned.better, "seconds": tuned.seconds}
    return {"bundle": str(tuned.bundle), "prompt": "cam", **figures}


def _config(options: argparse.Namespace) -> Config:
    preset = options.preset or "starter"
    if not options.config and preset not in PRESETS:
        raise SAMMixError(f"--preset {preset}: is for --slices; take {' or '.join(PRESETS)}")
    config = read_config(options.config) if options.config else PRESETS[preset]
    if options.seed is not None and options.seed < 0:
        raise SAMMixError(f"--seed {options.seed}: should be at least 0")
    wanted = {"labelled_slices": options.labelled, "epochs": options.epochs, "seed": options.seed}
    given = {name: value for name, value in wanted.items() if value is not None}
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **given))


def _recipe(options: argparse.Namespace) -> Recipe:
    from SAMMixLib.data.spec import DatasetSpec
    from SAMMixLib.training.recipe import Recipe, read_recipe

    if options.recipe:
        return read_recipe(options.recipe, options.data_root)
    listed = _listed(options.labelled_list) if options.labelled_list else None
    sources = [DatasetSpec(path, tuple(options.hu_range)) for path in options.data]
    return Recipe(sources, _config(options), options.validation, listed)


def _listed(path: Path) -> list[tuple[str, int]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["patient"], int(row["slice"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise SAMMixError(f"{path}: not a CSV file with the columns patient and slice ({error})") from None


def _new_folder(folder: Path | None) -> Path:
    if folder is None:
        raise SAMMixError("give the run folder with -o RUN")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise SAMMixError(f"{folder}: exists already; go on with --resume {folder}, or choose another") from None
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be made ({error.strerror})") from None
    return folder
