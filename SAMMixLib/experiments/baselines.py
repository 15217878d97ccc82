"""The baseline networks of Table 1, trained and asked through one function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.baselines_network import BASELINES, NetworkPredictor, load_network
from SAMMixLib.experiments.baselines_training import BEST, BaselinePlan, BaselineTrainer
from SAMMixLib.experiments.nnunet import train_nnunet
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictions
from SAMMixLib.training.sets import TrainingData

NNUNET = "nnunet"
NAMES = (*BASELINES, NNUNET)

Predictor = Callable[[SliceDataset], SlicePredictions]


def train_baseline(plan: BaselinePlan, data: TrainingData, folder: Path, runtime: Runtime = Runtime()) -> Predictor:
    """Train a baseline network, or go on with a run that was killed; a run that is over is only read.

    Args:
        data: slices to learn from, of which only masks with ``has_mask`` are seen and slices without liver need none;
            and slices of other patients: the weights with the best score on them are kept (nnU-Net keeps its last).
        folder: the run folder; made where it is missing.

    Raises:
        SAMMixError: the name is unknown, the sets do not fit (:meth:`TrainingData.check`), or the folder holds a
            damaged or another run.
    """
    if plan.name not in NAMES:
        raise SAMMixError(f"baseline {plan.name!r} is unknown; take one of {', '.join(NAMES)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if plan.name == NNUNET:
        data.check()
        return train_nnunet(plan, data.train, folder, runtime)
    trainer = BaselineTrainer(plan, data, folder, runtime)
    trainer.resume()
    trainer.run()
    return NetworkPredictor(load_network(plan.name, folder / BEST, runtime.device), plan.config.model, runtime)
