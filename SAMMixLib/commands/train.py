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
    what.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    what.add_argument("--print-config", action="store_true", help="print the config as JSON and stop")
    what.add_argument("--slices", type=Path, help=argparse.SUPPRESS)  # the former name of: sammix finetune SET
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", help="run folder, made new")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="with --recipe: where its relative paths start")
    parser.add_argument("--preset", metavar="NAME", help=f"{', '.join(PRESETS)} (default: starter)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a config as JSON instead of a preset")
    parser.add_argument("--hu-range", nargs=2, type=float, metavar=("LO", "HI"),
                        help="with --data: HU of 0 and 255 in uint8 .npz images (default: -40 160)")  # fmt: skip
    parser.add_argument(
        "--validation", nargs="+", metavar="PATIENT", help="with --data: held out (default: a fifth, by the seed)"
    )
    parser.add_argument(
        "--labelled", type=positive, metavar="N", help="use N masks, spread over the patients by the seed"
    )
    parser.add_argument(
        "--labelled-list", type=Path, metavar="CSV", help="with --data: use the masks of these: columns patient, slice"
    )
    parser.add_argument("--epochs", type=positive)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--model", default="starter", help=argparse.SUPPRESS)  # with --slices
    parser.add_argument("--name", help=argparse.SUPPRESS)  # with --slices
    parser.add_argument("--base-weights", type=Path, metavar="FILE", help="public weights of a ViT backbone")
    add_device_options(parser)
    parser.set_defaults(run=run, writes=("output", "resume"))
    parser.set_defaults(
        reads=("data", "recipe", "data_root", "config", "labelled_list", "slices", "model", "base_weights")
    )


FOREIGN = {  # options that a mode would pass over in silence
    "resume": ("output", "data_root", "preset", "config", "hu_range", "validation", "labelled", "labelled_list",
               "epochs", "seed"),
    "recipe": ("preset", "config", "hu_range", "validation", "labelled", "labelled_list", "epochs", "seed"),
    "data": ("data_root",),
    "print_config": ("output", "data_root", "hu_range", "validation", "labelled_list"),
}  # fmt: skip


def run(options: argparse.Namespace) -> dict:
    if options.slices:
        from SAMMixLib.commands import finetune

        options.set, options.seed = options.slices, options.seed or 0
        return finetune.run(options)
    mode = next(name for name in FOREIGN if getattr(options, name))
    for name in FOREIGN[mode]:
        if getattr(options, name) is not None:
            said, option = (f"--{each.replace('_', '-')}" for each in (mode, name))
            raise SAMMixError(f"{option} has no effect with {said}; leave it out")
    if mode == "print_config":
        config = _config(options)
        print(json.dumps(config.to_dict(), indent=1))
        return config.to_dict()
    return _train(options, resume=mode == "resume")


def _train(options: argparse.Namespace, resume: bool) -> dict:
    folder = options.resume if resume else _new_folder(options.output)
    try:
        return _trained(options, folder, resume)
    except BaseException:
        if not resume and not any(folder.iterdir()):
            folder.rmdir()  # a run that cannot start leaves nothing
        raise


def _trained(options: argparse.Namespace, folder: Path, resume: bool) -> dict:
    from SAMMixLib.inference.device import Runtime, choose_device
    from SAMMixLib.training.recipe import FILE, read_recipe
    from SAMMixLib.training.sets import TrainingData
    from SAMMixLib.training.trainer import Trainer, new_model

    recipe = read_recipe(folder / FILE) if resume else _recipe(options)
    data = TrainingData(*recipe.read())
    with progress_bar() as progress:
        runtime = Runtime.choose(options.device, options.dtype).told(progress)
        data.check()
        model = new_model(recipe.config, options.base_weights)
        trainer = Trainer(recipe.config, data, folder, model, runtime)
        trainer.record = recipe.record
        if not resume:
            recipe.save(folder)
        counts = ", ".join(f"{name} {count:,}" for name, count in trainer.trainable.items())
        print(f"device: {choose_device(options.device)[1]}; trainable parameters: {counts}")
        print(f"{len(data.train)} slices with image-level labels, {len(trainer.labelled)} masks, {trainer.steps} steps")
        trainer.resume()
        trainer.run(print)
    bundle, score = folder / "bundle", trainer.state.best_score
    print(f"best epoch: score {score:.4f} on validation patients (prompt source cam); bundle: {bundle}")
    return {"bundle": str(bundle), "score": score, "prompt": "cam"}


def _config(options: argparse.Namespace) -> Config:
    preset = options.preset or "starter"
    if not options.config and preset not in PRESETS:
        other = "; quick and full are for: sammix finetune SET" if preset in FINE_TUNING else ""
        raise SAMMixError(f"--preset {preset}: take {' or '.join(PRESETS)}{other}")
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
    low, high = options.hu_range or (-40.0, 160.0)
    sources = [DatasetSpec(path, (low, high)) for path in options.data]
    return Recipe(sources, _config(options), options.validation or [], listed)


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
