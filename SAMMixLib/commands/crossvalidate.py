"""``sammix crossvalidate``: what a recipe is worth on patients that its models never saw."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from SAMMixLib.commands.common import add_device_options, positive, progress_bar


def add_command(commands) -> None:
    parser = commands.add_parser("crossvalidate", help="score a recipe by cross-validation", description=__doc__)
    parser.add_argument("recipe", type=Path, metavar="FILE", help="a recipe such as Resources/recipes/starter.json")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the recipe's relative paths start")
    parser.add_argument("--folds", type=positive, default=5, help="default: 5")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="runs and figures; goes on where it was"
    )
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> dict:
    from SAMMixLib.breakdown import as_text
    from SAMMixLib.crossvalidation import cross_validate
    from SAMMixLib.device import choose_device, choose_dtype
    from SAMMixLib.evaluation import evaluate_slices
    from SAMMixLib.evaluation_files import as_json, as_table, write_evaluation
    from SAMMixLib.recipe import read_recipe

    recipe = read_recipe(options.recipe, options.data_root)
    device, reason = choose_device(options.device)
    print(f"device: {reason}")
    with progress_bar() as progress:
        data, masks, p_liver = cross_validate(
            recipe,
            options.folds,
            options.output,
            device=device,
            dtype=choose_dtype(device, options.dtype),
            progress=progress,
            say=print,
        )
    settings = recipe.config.training
    provenance = {
        "data": ", ".join(Path(source.path).name for source in recipe.sources),
        "split": f"{options.folds} folds by patient; epoch and threshold chosen on the patients of the next fold",
        "labelled_slices": "all" if settings.labelled_slices is None else settings.labelled_slices,
        "seed": settings.seed,
        "gate": "along z",
    }
    evaluation = evaluate_slices(masks, p_liver, data, "cam", provenance)
    write_evaluation(evaluation, options.output)
    breakdown = as_text(evaluation.slices)
    (options.output / "breakdown.md").write_text(breakdown + "\n", encoding="utf-8")
    print(as_table(evaluation), breakdown, sep="\n\n")
    everything = json.loads(as_json(evaluation))
    return {key: everything[key] for key in ("provenance", "counts", "summary")}
