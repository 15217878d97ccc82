"""One run of a protocol: train what its row says, score it once on every test set, keep the result.

SAM-PP, the two-stage training of the same parts, is SAM-Mix with training boxes of the masks and no activation loss:
CAM and box are detached, so its classifier and its SAM then share nothing, and one loop trains both as apart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.evaluation.evaluate import evaluate_slices
from SAMMixLib.evaluation.tables import as_json
from SAMMixLib.experiments.examples import keep_examples
from SAMMixLib.experiments.protocol import SAM_METHODS, Cell, Protocol
from SAMMixLib.files import write_text
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import PROMPTS, SlicePredictions, SlicePredictor
from SAMMixLib.method.windowing import windowed
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.training.feature_cache import FeatureCache
from SAMMixLib.training.sets import TrainingData
from SAMMixLib.training.trainer import Trainer, new_model

RESULT = "result.json"
PLAN = "plan.json"
TRIAL_STEPS = 3  # timed after one that is not, to see how many fit into the budget

Say = Callable[[str], None]
Predict = Callable[[SliceDataset, str], SlicePredictions]


@dataclass(frozen=True)
class Workplace:
    """Where the runs of a protocol are, what they read, and where they compute."""

    data_root: Path
    folder: Path
    runtime: Runtime
    base_weights: Path | None = None

    @property
    def features(self) -> Path:
        """Frozen features, which all runs share."""
        return self.folder / "features"


@dataclass(frozen=True)
class Trained:
    """What a row's training leaves: how to predict, and what it cost."""

    predict: Predict
    prompts: tuple[str, ...]
    labelled: int
    seconds: float | None  # processor seconds
    steps: int | None = None


def run_cell(protocol: Protocol, cell: Cell, place: Workplace, say: Say = lambda line: None) -> dict[str, Any]:
    """Train and test a cell in a folder of its own, or go on with one that was killed; returns its result.

    Raises:
        SAMMixError: the data are missing, or do not fit the protocol.
    """
    own = place.folder / cell.key
    own.mkdir(parents=True, exist_ok=True)
    train, validation, tests = protocol.read(place.data_root)
    method = _train_sam if cell.row.method in SAM_METHODS else _train_baseline
    trained = method(protocol, cell, TrainingData(train, validation), place, say)
    scores: dict[str, dict[str, Any]] = {}
    by_cam: dict[str, SlicePredictions] = {}
    for name, data in tests.items():
        scores[name] = {}
        for prompt in trained.prompts:
            found = trained.predict(data, prompt)
            by_cam.setdefault(name, found)
            provenance = {"data": name, "split": "test", "labelled_slices": trained.labelled, "seed": cell.seed}
            evaluation = evaluate_slices(found, data, prompt, provenance)
            everything = json.loads(as_json(evaluation))
            scores[name][prompt] = {key: everything[key] for key in ("summary", "slices")}
            dice = everything["summary"]["liver_slice_dice"]["value"]
            say(f"{cell.name}, seed {cell.seed}, {name}, prompt source {prompt}: Dice {dice:.3f} on slices with liver")
    result = {
        "protocol": protocol.name,
        "row": cell.name,
        "method": cell.row.method,
        "labelled_slices": trained.labelled,
        "all_labels": cell.labelled is None,
        "seed": cell.seed,
        "steps": trained.steps,
        "processor_seconds": trained.seconds,
        "scores": scores,
    }
    keep_examples(own, tests, by_cam, protocol.config.model)
    _write(own / RESULT, result)
    return result


def read_result(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The result of a cell that is done."""
    path = folder / cell.key / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _sam_trainer(protocol: Protocol, cell: Cell, data: TrainingData, place: Workplace) -> Trainer:
    """The cell's trainer, with as many steps as its budget buys: measured once, kept for a resumed run.

    Views of labelled slices beyond those of every slice, which all runs share, are paid from the budget.
    A row may say its steps itself, where the first ones, which are measured, are not like the rest.
    """
    own = place.folder / cell.key

    def trainer(config: Config) -> Trainer:
        made = Trainer(config, data, own, new_model(config, place.base_weights), place.runtime)
        made.record = {"name": cell.key, "data": protocol.source.name, "split": protocol.name, "seed": cell.seed}
        made.features_folder = place.features
        return made

    config = protocol.config_of(cell)
    if "epochs" in protocol.budget:
        return trainer(replace(config, training=replace(config.training, epochs=int(protocol.budget["epochs"]))))
    if config.training.steps:
        return trainer(config)
    if not _plan(own):
        trial = trainer(config)
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


def _train_sam(protocol: Protocol, cell: Cell, data: TrainingData, place: Workplace, say: Say) -> Trained:
    trainer = _sam_trainer(protocol, cell, data, place)
    trainer.resume()
    trainer.run(say)
    model = load_bundle(trainer.folder / "bundle").to(place.runtime.device)
    cache = FeatureCache(model.backbone, place.features, place.runtime)

    def predict(test: SliceDataset, prompt: str) -> SlicePredictions:
        stored = None
        if trainer.config.training.views:
            stored = cache.features(windowed(test.images, trainer.config.model))
        return SlicePredictor(model, place.runtime)(test, prompt, stored)

    spent = trainer.state.seconds + _plan(trainer.folder).get("seconds_of_labelled_views", 0.0)
    return Trained(predict, PROMPTS, len(trainer.labelled), round(spent, 1), trainer.steps)


def _train_baseline(protocol: Protocol, cell: Cell, data: TrainingData, place: Workplace, say: Say) -> Trained:
    from SAMMixLib.experiments.baselines import train_baseline
    from SAMMixLib.experiments.baselines_training import BaselinePlan, RowBudget

    seen = data.with_labelled(cell.labelled, cell.seed)
    plan = BaselinePlan(cell.row.method, RowBudget(**protocol.budget), protocol.config_of(cell))
    predictor = train_baseline(plan, seen, place.folder / cell.key, place.runtime)
    assert seen.labelled is not None
    seconds = protocol.budget.get("seconds")
    return Trained(lambda test, prompt: predictor(test), PROMPTS[:1], len(seen.labelled), seconds)


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
