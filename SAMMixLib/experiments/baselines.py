"""The baseline networks of Table 1, trained and asked through one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from SAMMixLib.config import PRESETS, Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.baselines_network import BASELINES, NetworkPredictor, load_network
from SAMMixLib.experiments.baselines_training import BEST, BaselineTrainer, Budget
from SAMMixLib.experiments.nnunet import train_nnunet
from SAMMixLib.inference.slices import SlicePredictions
from SAMMixLib.progress import Progress, silent
from SAMMixLib.training.trainer import check_split, check_training_sets

NNUNET = "nnunet"
NAMES = (*BASELINES, NNUNET)

Predictor = Callable[..., SlicePredictions]
"""Called as ``predictor(dataset, progress)``: masks and p(liver) of each slice."""


def train_baseline(
    name: str,
    train: SliceDataset,
    validation: SliceDataset,
    folder: Path,
    seed: int,
    budget: Budget,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
    config: Config = PRESETS["starter"],
) -> Predictor:
    """Train a baseline network, or go on with a run that was killed; a run that is over is only read.

    Args:
        name: one of :data:`NAMES`.
        train: slices to learn from. Only masks with ``has_mask`` are seen; slices without liver need none.
        validation: slices of other patients; the weights with the best score on them are kept (nnU-Net keeps its last).
        folder: the run folder; made where it is missing.
        seed: of weights, batches and augmentation.
        dtype: of autocast; float32 is none.
        config: window and size of a slice, augmentation, weight decay and number of validation slices; those of
            SAM-Mix, so that the rows of the table differ in the network only. nnU-Net has its own.

    Raises:
        SAMMixError: the name is unknown, the sets do not fit
            (:func:`SAMMixLib.training.trainer.check_training_sets`), or the folder holds a damaged or another run.
    """
    if name not in NAMES:
        raise SAMMixError(f"baseline {name!r} is unknown; take one of {', '.join(NAMES)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if name == NNUNET:
        check_training_sets(train, validation)
        check_split(train, validation)
        return train_nnunet(train, folder, seed, budget, device, dtype, progress)
    config = replace(config, training=replace(config.training, seed=seed))
    trainer = BaselineTrainer(name, train, validation, folder, config, budget, device, dtype)
    trainer.resume()
    trainer.run(progress)
    return NetworkPredictor(load_network(name, folder / BEST, device), config.model, dtype)
