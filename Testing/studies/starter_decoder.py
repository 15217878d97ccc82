"""The decoder of the next starter, trained behind the boxes of its own classifier, which stays as it is.

    python Testing/studies/starter_decoder.py PYRAMID/bundle DATA -o RUN

Data, held-out patients and config are those of ``Resources/recipes/next-starter.json``; adapters and decoder go on
from the bundle's. Each slice is drawn once, as in :mod:`pyramid_classifier`: small livers and rare patients more often.
A killed run goes on with its checkpoint. In the end it scores the last weights (a moving average; the few slices of a
validation cannot tell them from others) on the held-out patients, the gate along z on, and fits the Dice to expect of a
slice on them. Both are kept: ``held-out``, and the bundle ``starter``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyramid_classifier import RECIPE, draw_shares

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.evaluation.breakdown import breakdown
from SAMMixLib.evaluation.evaluate import evaluate_slices
from SAMMixLib.evaluation.tables import as_table, write_evaluation
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictor
from SAMMixLib.models.bundle import load_bundle, save_bundle
from SAMMixLib.process import tune_process
from SAMMixLib.training.crossvalidation import OutOfFold
from SAMMixLib.training.recipe import read_recipe
from SAMMixLib.training.sets import TrainingData
from SAMMixLib.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=260)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()
    options.output.mkdir(parents=True, exist_ok=True)

    recipe = read_recipe(RECIPE, options.data)
    settings = recipe.config.training
    # A learning rate of 0 leaves the classifier alone; that of pretrained parts counts for adapters and decoder.
    training = replace(settings, learning_rate=0.0, cam_weight=0.0, steps=options.steps, validation_slices=40)
    config = replace(recipe.config, training=training)
    train_set, held_out, _ = recipe.read()
    shares = np.where(train_set.labels & train_set.has_mask, draw_shares(train_set, recipe), 0)
    count = min(options.steps * settings.mask_batch_size, int((shares > 0).sum()))
    drawn = np.random.default_rng(settings.seed).choice(len(shares), count, replace=False, p=shares / shares.sum())
    data = TrainingData(train_set, held_out, np.sort(drawn))
    trainer = Trainer(config, data, options.output, load_bundle(options.bundle), Runtime.choose())
    trainer.record = recipe.record
    trainer.resume()
    trainer.run(lambda line: print(line, flush=True))
    finish(trainer, recipe.config, held_out)


def finish(trainer: Trainer, config: Config, held_out: SliceDataset) -> None:
    """Score the model on patients that it never saw, and save it with an estimate of quality fitted on them."""
    model = trainer.kept_model
    found = SlicePredictor(model, trainer.runtime, config.volume)(held_out, "cam")
    count = len(trainer.labelled)
    provenance = {"data": "LiTS", "split": "held-out patients", "labelled_slices": count, "seed": config.training.seed}
    evaluation = evaluate_slices(found, held_out, "cam", provenance)
    _, folds = np.unique(held_out.patients, return_inverse=True)
    predicted = replace(OutOfFold.of(held_out, found, fold=0), folds=folds)
    quality, expected = predicted.quality(np.array([row["dice"] for row in evaluation.slices]))
    for row, dice in zip(evaluation.slices, expected, strict=True):
        row["expected_dice"] = float(dice)
    write_evaluation(evaluation, trainer.folder / "held-out")
    print(as_table(evaluation), breakdown(evaluation.slices), sep="\n")
    record = trainer.record | {"quality": quality.to_dict(), "labelled_slices": count, "prompt": "cam"}
    save_bundle(model, config, record, trainer.folder / "starter", replace=True)


if __name__ == "__main__":
    main()
