"""Training of the baseline networks: the loaders, validation and checkpoints of SAM-Mix, another network and loss.

A run folder holds ``log.jsonl``, ``curves.png``, ``checkpoint.pt`` and ``best.safetensors``: the weights with the best
score on the validation patients so far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from safetensors.torch import save_file
from torch import Tensor, nn

from SAMMixLib.config import PRESETS, Config
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.baselines_network import BASELINES, NetworkPredictor, log_odds
from SAMMixLib.files import atomic
from SAMMixLib.inference.device import Runtime
from SAMMixLib.networks.baselines.multimix import MultiMix
from SAMMixLib.training.checkpoint import load_trained_state, trained_state
from SAMMixLib.training.curves import plot_curves
from SAMMixLib.training.loaders import CLASSIFY, SEGMENT, Batch, SliceBatches, step_seed
from SAMMixLib.training.loop import Budget, TrainingRun, set_learning_rate
from SAMMixLib.training.sets import TrainingData
from SAMMixLib.training.trainer import learning_rate_scale
from SAMMixLib.training.validation import validation_scores, validation_subset

BEST = "best.safetensors"
VALIDATIONS = 10  # evenly spread over the budget
WARMUP = 0.05  # of the budget; then the learning rate follows a cosine to 0
WITHOUT_LIVER = 0.25  # share of such slices in a batch of a network that only segments

_dice = DiceLoss(sigmoid=True, batch=True)  # over the batch: a slice without liver has no Dice of its own


@dataclass(frozen=True)
class RowBudget:
    """How long a row of a protocol trains; give one of the two.

    Args:
        epochs: passes over the image-level labels, as for SAM-Mix.
        seconds: see :class:`SAMMixLib.training.loop.Budget`.

    Raises:
        SAMMixError: none is given, or both.
    """

    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.seconds is None):
            raise SAMMixError(f"training budget: {self.epochs} epochs, {self.seconds} seconds; give one of the two")

    def in_steps(self, steps_per_epoch: int) -> Budget:
        """The same with epochs as steps."""
        return Budget(seconds=self.seconds) if self.epochs is None else Budget(steps=self.epochs * steps_per_epoch)


@dataclass(frozen=True)
class BaselinePlan:
    """Which network is trained, how long, and on what kind of slices.

    Args:
        name: one of :data:`SAMMixLib.experiments.baselines.NAMES`.
        config: window and size of a slice, augmentation, weight decay, seed and number of validation slices; those of
            SAM-Mix, so that the rows of the table differ in the network only. nnU-Net has its own, but for the seed.
    """

    name: str
    budget: RowBudget
    config: Config = PRESETS["starter"]

    @property
    def seed(self) -> int:
        """Of weights, batches and augmentation."""
        return self.config.training.seed


class BaselineTrainer(TrainingRun):
    """One run of one network in one folder; see :func:`SAMMixLib.experiments.baselines.train_baseline`.

    Raises:
        SAMMixError: see :meth:`SAMMixLib.training.sets.TrainingData.check`.
    """

    def __init__(self, plan: BaselinePlan, data: TrainingData, folder: Path, runtime: Runtime = Runtime()) -> None:
        data.check()
        self.plan, self.baseline, config, train = plan, BASELINES[plan.name], plan.config, data.train
        outlined = train.select(train.labels & train.has_mask)
        size = self.baseline.batch_size
        if self.baseline.classifies:
            # The masks are put aside: for the image-level loss only.
            self.others = SliceBatches(train, config, size, CLASSIFY)
            self.outlined = SliceBatches(outlined, config, size, SEGMENT)
        else:
            empty = round(WITHOUT_LIVER * size)
            self.others = SliceBatches(train.select(~train.labels), config, empty, CLASSIFY)
            self.outlined = SliceBatches(outlined, config, size - empty, SEGMENT)
        self.validation = validation_subset(data.validation, config.training.validation_slices)
        super().__init__(folder, plan.budget.in_steps(math.ceil(len(train) / size)), runtime)

        torch.manual_seed(plan.seed)
        self.network = self.baseline.build().to(runtime.device)
        rate = self.baseline.learning_rate
        parameters = {"params": list(self.network.parameters()), "full_lr": rate}
        self.optimiser = torch.optim.AdamW([parameters], rate, weight_decay=config.training.weight_decay)

    def progress(self) -> tuple[int, int]:
        """In thousandths of the budget, whatever its unit."""
        return min(1000, int(self.spent * 1000)), 1000

    def train_step(self, step: int) -> dict[str, float]:
        """One AdamW step."""
        torch.manual_seed(step_seed(self.plan.seed, step, 0))  # dropout
        set_learning_rate(self.optimiser, learning_rate_scale(int(self.spent * 1000), 1000, WARMUP))
        self.network.train()
        outlined, others = self.outlined(step), self.others(step)
        losses = self.joint_losses(outlined, others) if self.baseline.classifies else self.losses(outlined, others)
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            raise SAMMixError(
                f"{self.folder}: the loss of {self.plan.name} is not a number at step {step}; use float32"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        return {name: value.item() for name, value in losses.items()}

    def losses(self, outlined: Batch, without_liver: Batch) -> dict[str, Tensor]:
        """Dice and cross entropy of the pixels, on slices with a mask and slices whose mask is known to be empty."""
        slices = torch.cat([outlined.slices, without_liver.slices]).to(self.runtime.device)
        masks = torch.cat([outlined.masks, torch.zeros_like(without_liver.masks)]).float().to(self.runtime.device)
        with self.runtime.autocast():
            logits = self.network(slices)
        logits = log_odds(logits)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, masks)
        dice = _dice(logits[:, None], masks[:, None])
        return {"segmentation_loss": self.baseline.dice * dice + self.baseline.cross_entropy * cross_entropy}

    def joint_losses(self, outlined: Batch, every: Batch) -> dict[str, Tensor]:
        """Cross entropy of the slices on all of them, Dice on those with a mask."""
        network = cast("MultiMix", self.network)
        with self.runtime.autocast():
            classes = network.classify(every.slices.to(self.runtime.device))
            logits, _ = network(outlined.slices.to(self.runtime.device))
        cross_entropy = F.binary_cross_entropy_with_logits(log_odds(classes), every.labels.to(self.runtime.device))
        dice = _dice(log_odds(logits)[:, None], outlined.masks[:, None].float().to(self.runtime.device))
        return {
            "classification_loss": self.baseline.cross_entropy * cross_entropy,
            "segmentation_loss": self.baseline.dice * dice,
        }

    def validation_due(self, before: float) -> bool:
        """At even shares of the budget."""
        return int(min(self.spent, 1.0) * VALIDATIONS) > int(before * VALIDATIONS)

    def validate(self) -> str:
        """Score the network on the validation patients, and keep its weights if they are the best."""
        predict = NetworkPredictor(self.network, self.plan.config.model, self.runtime)
        scores = validation_scores(predict(self.validation).masks, self.validation)
        self.report(scores)
        if scores["score"] > self.state.best_score or not (self.folder / BEST).exists():
            self.state.best_score = scores["score"]
            with atomic(self.folder / BEST) as beside:
                save_file(self.network.state_dict(), beside)
        plot_curves(self.state.history, self.folder / "curves.png")
        return f"{self.plan.name}: validation Dice {scores['validation_dice']:.4f} on liver slices"

    def report(self, figures: dict) -> None:
        """Append one line to the log, with the processor seconds spent."""
        super().report({"seconds": round(self.state.seconds, 2), **figures})

    def checkpoint(self) -> dict[str, Any]:
        """Weights, optimiser and seed."""
        return {
            "model": trained_state(self.network),
            "optimiser": self.optimiser.state_dict(),
            "seed": self.plan.seed,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Put back what :meth:`checkpoint` gave; raises SAMMixError where it is of another network or seed."""
        if content["seed"] != self.plan.seed:
            raise SAMMixError(
                f"{self.folder}: the checkpoint has seed {content['seed']}, not {self.plan.seed}; use a new run"
            )
        load_trained_state(self.network, content["model"], self.folder)
        self.optimiser.load_state_dict(content["optimiser"])
