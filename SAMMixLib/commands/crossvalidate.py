"""``sammix crossvalidate``: what a recipe is worth on patients that its models never saw."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from SAMMixLib.commands.common import add_device_options, positive, progress_bar


def add_command(commands) -> None:
    parser = commands.add_parser("crossvalidate", help="score a recipe by cross-validation", description=__doc__)
    parser.add_argument("recipe", type=Path, metavar="FILE", help="such as Resources/recipes/next-starter.json")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the recipe's relative paths start")
    parser.add_argument("--folds", type=positive, default=5, help="default: 5")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="runs and figures; goes on where it was"
    )
    parser.add_argument("--base-weights", type=Path, metavar="FILE", help="public weights of a ViT backbone")
    add_device_options(parser)
    parser.set_defaults(run=run, reads=("recipe", "data_root", "base_weights"), writes=("output",))


def run(options: argparse.Namespace) -> dict:
    import numpy as np

    from SAMMixLib.evaluation.breakdown import breakdown
    from SAMMixLib.evaluation.evaluate import evaluate_slices
    from SAMMixLib.evaluation.tables import as_json, as_table, write_evaluation
    from SAMMixLib.files import write_text
    from SAMMixLib.inference.device import Runtime, choose_device
    from SAMMixLib.training.crossvalidation import CrossValidation
    from SAMMixLib.training.recipe import read_recipe

    recipe = read_recipe(options.recipe, options.data_root)
    print(f"device: {choose_device(options.device)[1]}")
    with progress_bar() as progress:
        runtime = Runtime.choose(options.device, options.dtype).told(progress)
        validated = CrossValidation(recipe, options.folds, options.base_weights, print)
        predicted = validated(options.output, runtime)
    settings = recipe.config.training
    provenance = {
        "data": ", ".join(Path(source.path).name for source in recipe.sources),
        "split": f"{options.folds} folds by patient; epoch and threshold chosen on the patients of the next fold",
        "labelled_slices": "all" if settings.labelled_slices is None else settings.labelled_slices,
        "seed": settings.seed,
        "gate": "along z",
    }
    evaluation = evaluate_slices(predicted.found, predicted.data, "cam", provenance)
    quality, expected = predicted.quality(np.array([row["dice"] for row in evaluation.slices]))
    for row, dice in zip(evaluation.slices, expected, strict=True):
        row["expected_dice"] = float(dice)
    write_evaluation(evaluation, options.output)
    tables = breakdown(evaluation.slices)
    write_text(options.output / "breakdown.md", tables + "\n")
    write_text(options.output / "quality.json", json.dumps(quality.to_dict(), indent=1) + "\n")
    print(as_table(evaluation), tables, sep="\n")
    everything = json.loads(as_json(evaluation))
    return {key: everything[key] for key in ("provenance", "counts", "summary")}
