"""One run of a protocol: train what its row says, score it once on every test set, keep the result.

SAM-PP, the two-stage training of the same parts, is SAM-Mix with training boxes of the masks and no activation loss:
CAM and box are detached, so its classifier and its SAM then share nothing, and one loop trains both as apart.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset, choose_labelled
from SAMMixLib.evaluation.evaluate import evaluate_slices
from SAMMixLib.evaluation.tables import as_json
from SAMMixLib.experiments.examples import keep_examples
from SAMMixLib.experiments.protocol import SAM_METHODS, Cell, Protocol
from SAMMixLib.inference.slices import PROMPTS, SlicePredictions, predict_slices
from SAMMixLib.method.windowing import windowed
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.progress import Progress, silent
from SAMMixLib.training.feature_cache import stored_features
from SAMMixLib.training.trainer import Trainer

RESULT = "result.json"
PLAN = "plan.json"
TRIAL_STEPS = 3  # timed after one that is not, to see how many fit into the budget

Say = Callable[[str], None]
Predict = Callable[[SliceDataset, str], SlicePredictions]


def run_cell(
    protocol: Protocol,
    cell: Cell,
    data_root: Path,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress = silent,
    say: Say = lambda line: None,
    base_weights: Path | None = None,
) -> dict[str, Any]:
    """Train and test a cell in ``folder / cell.key``, or go on with one that was killed; returns its result.

    Raises:
        SAMMixError: the data are missing, or do not fit the protocol.
    """
    own = folder / cell.key
    own.mkdir(parents=True, exist_ok=True)
    train, validation, tests = protocol.read(data_root)
    if cell.row.method in SAM_METHODS:
        features = folder / "features"
        trainer = _sam_trainer(protocol, cell, train, validation, own, features, device, dtype, base_weights)
        predict, spent = _train_sam(trainer, features, progress, say)
        prompts, labelled, steps = PROMPTS, len(trainer.labelled), trainer.steps
    else:
        predict, spent, labelled = _train_baseline(protocol, cell, train, validation, own, device, dtype, progress)
        prompts, steps = PROMPTS[:1], None
    scores: dict[str, dict[str, Any]] = {}
    by_cam: dict[str, SlicePredictions] = {}
    for name, data in tests.items():
        scores[name] = {}
        for prompt in prompts:
            found = predict(data, prompt)
            by_cam.setdefault(name, found)
            provenance = {"data": name, "split": "test", "labelled_slices": labelled, "seed": cell.seed}
            evaluation = evaluate_slices(found, data, prompt, provenance)
            everything = json.loads(as_json(evaluation))
            scores[name][prompt] = {key: everything[key] for key in ("summary", "slices")}
            dice = everything["summary"]["liver_slice_dice"]["value"]
            say(f"{cell.name}, seed {cell.seed}, {name}, prompt source {prompt}: Dice {dice:.3f} on slices with liver")
    result = {
        "protocol": protocol.name,
        "row": cell.name,
        "method": cell.row.method,
        "labelled_slices": labelled,
        "all_labels": cell.labelled is None,
        "seed": cell.seed,
        "steps": steps,
        "processor_seconds": spent,
        "scores": scores,
    }
    keep_examples(own, tests, by_cam, protocol.config.model)
    _write(own / RESULT, result)
    return result


def read_result(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The result of a cell that is done."""
    path = folder / cell.key / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _sam_trainer(
    protocol: Protocol,
    cell: Cell,
    train: SliceDataset,
    validation: SliceDataset,
    own: Path,
    features: Path,
    device: torch.device,
    dtype: torch.dtype,
    base_weights: Path | None,
) -> Trainer:
    """The cell's trainer, with as many steps as its budget buys: measured once, kept for a resumed run.

    Views of labelled slices beyond those of every slice, which all runs share, are paid from the budget.
    A row may say its steps itself, where the first ones, which are measured, are not like the rest.
    """

    def trainer(config: Config) -> Trainer:
        record = {"name": cell.key, "data": protocol.source.name, "split": protocol.name, "seed": cell.seed}
        return Trainer(
            config, train, validation, own, record, None, device, dtype, base_weights, features_folder=features
        )

    config = protocol.config_of(cell)
    if "epochs" in protocol.budget:
        return trainer(replace(config, training=replace(config.training, epochs=int(protocol.budget["epochs"]))))
    if config.training.steps:
        return trainer(config)
    if not _plan(own):
        trial = trainer(config)
        trial.prepare(silent)
        trial.train_step(0)
        started = time.process_time()
        for step in range(1, 1 + TRIAL_STEPS):
            trial.train_step(step)
        cost = (time.process_time() - started) / TRIAL_STEPS
        views = trial.seconds_of_labelled_views()
        steps = max(1, round((protocol.budget["seconds"] - views) / cost))
        _write(own / PLAN, {"steps": steps, "seconds_a_step": cost, "seconds_of_labelled_views": views})
    return trainer(replace(config, training=replace(config.training, steps=_plan(own)["steps"])))


def _plan(own: Path) -> dict[str, Any]:
    plan = own / PLAN
    return json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else {}


def _train_sam(trainer: Trainer, features: Path, progress: Progress, say: Say) -> tuple[Predict, float]:
    trainer.resume()
    trainer.run(progress, say)
    model = load_bundle(trainer.folder / "bundle").to(trainer.device)

    def predict(data: SliceDataset, prompt: str) -> SlicePredictions:
        stored = None
        if trainer.config.training.views:
            seen = windowed(data.images, trainer.config.model)
            stored = stored_features(model.backbone, seen, features, trainer.dtype, progress)
        return predict_slices(model, data, prompt, dtype=trainer.dtype, progress=progress, features=stored)

    return predict, round(trainer.state.seconds + _plan(trainer.folder).get("seconds_of_labelled_views", 0.0), 1)


def _train_baseline(
    protocol: Protocol,
    cell: Cell,
    train: SliceDataset,
    validation: SliceDataset,
    own: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> tuple[Predict, float | None, int]:
    from SAMMixLib.experiments.baselines import train_baseline
    from SAMMixLib.experiments.baselines_training import Budget

    count = int((train.labels & train.has_mask).sum()) if cell.labelled is None else cell.labelled
    labelled = choose_labelled(train, count, cell.seed)
    train = replace(train, has_mask=np.isin(np.arange(len(train)), labelled))
    budget = Budget(**protocol.budget)
    config = protocol.config_of(cell)
    predictor = train_baseline(
        cell.row.method, train, validation, own, cell.seed, budget, device, dtype, progress, config
    )
    return lambda data, prompt: predictor(data, progress), protocol.budget.get("seconds"), count


def _write(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)
