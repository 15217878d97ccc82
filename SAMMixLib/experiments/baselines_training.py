"""Training of the baseline networks: the loaders, validation and checkpoints of SAM-Mix, another network and loss.

A run folder holds ``log.jsonl``, ``curves.png``, ``checkpoint.pt`` and ``best.safetensors``: the weights with the best
score on the validation patients so far.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from safetensors.torch import save_file
from torch import Tensor, nn

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.baselines_network import BASELINES, NetworkPredictor, log_odds
from SAMMixLib.progress import Progress, silent
from SAMMixLib.training.checkpoint import load_trained_state, read_checkpoint, trained_state, write_checkpoint
from SAMMixLib.training.curves import plot_curves
from SAMMixLib.training.loaders import Batch, SliceBatches, step_seed
from SAMMixLib.training.run_log import RunState
from SAMMixLib.training.trainer import (
    CHECKPOINT_SECONDS,
    CLASSIFY,
    REPORT_STEPS,
    SEGMENT,
    check_split,
    check_training_sets,
    learning_rate_scale,
    validation_scores,
    validation_subset,
)

BEST = "best.safetensors"
VALIDATIONS = 10  # evenly spread over the budget
WARMUP = 0.05  # of the budget; then the learning rate follows a cosine to 0
WITHOUT_LIVER = 0.25  # share of such slices in a batch of a network that only segments

_dice = DiceLoss(sigmoid=True, batch=True)  # over the batch: a slice without liver has no Dice of its own


@dataclass(frozen=True)
class Budget:
    """How long a network trains; give one of the two.

    Args:
        epochs: passes over the image-level labels, as for SAM-Mix.
        seconds: processor seconds of this process, all threads together, in training steps; validation and writing
            files do not count.
    """

    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.seconds is None):
            raise SAMMixError(f"training budget: {self.epochs} epochs, {self.seconds} seconds; give one of the two")


class BaselineTrainer:
    """One run of one network in one folder; see :func:`SAMMixLib.experiments.baselines.train_baseline`.

    Raises:
        SAMMixError: see :func:`SAMMixLib.training.trainer.check_training_sets`.
    """

    def __init__(
        self,
        name: str,
        train: SliceDataset,
        validation: SliceDataset,
        folder: Path,
        config: Config,
        budget: Budget,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_training_sets(train, validation)
        check_split(train, validation)
        self.name, self.baseline, self.folder, self.config, self.budget = name, BASELINES[name], folder, config, budget
        self.device, self.dtype, self.seed = torch.device(device), dtype, config.training.seed
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
        self.validation = validation_subset(validation, config.training.validation_slices)
        self.steps_per_epoch = math.ceil(len(train) / size)

        torch.manual_seed(self.seed)
        self.network = self.baseline.build().to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), self.baseline.learning_rate, weight_decay=config.training.weight_decay
        )
        self.state = RunState()

    @property
    def spent(self) -> float:
        """The share of the budget that is spent; from 1 on the run is over."""
        if self.budget.seconds is not None:
            return self.state.seconds / self.budget.seconds
        return self.state.step / (self.budget.epochs * self.steps_per_epoch)

    def run(self, progress: Progress = silent) -> None:
        """Train until the budget is spent."""
        saved = time.monotonic()
        while self.spent < 1:
            validated, started = int(self.spent * VALIDATIONS), time.process_time()
            losses = self.train_step(self.state.step, self.spent)
            self.state.seconds += time.process_time() - started
            self.state.step += 1
            if self.state.step % REPORT_STEPS == 0:
                self.report(losses)
            progress("train", min(1000, int(self.spent * 1000)), 1000)
            due = int(min(self.spent, 1.0) * VALIDATIONS) > validated
            if due:
                self.validate(progress)
            if due or time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save_checkpoint()
                saved = time.monotonic()

    def train_step(self, step: int, spent: float) -> dict[str, float]:
        """One AdamW step."""
        torch.manual_seed(step_seed(self.seed, step, 0))  # dropout
        for group in self.optimiser.param_groups:
            group["lr"] = self.baseline.learning_rate * learning_rate_scale(int(spent * 1000), 1000, WARMUP)
        self.network.train()
        outlined, others = self.outlined(step), self.others(step)
        losses = self.joint_losses(outlined, others) if self.baseline.classifies else self.losses(outlined, others)
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            raise SAMMixError(f"{self.folder}: the loss of {self.name} is not a number at step {step}; use float32")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        return {name: value.item() for name, value in losses.items()}

    def losses(self, outlined: Batch, without_liver: Batch) -> dict[str, Tensor]:
        """Dice and cross entropy of the pixels, on slices with a mask and slices whose mask is known to be empty."""
        slices = torch.cat([outlined.slices, without_liver.slices]).to(self.device)
        masks = torch.cat([outlined.masks, torch.zeros_like(without_liver.masks)]).float().to(self.device)
        with self.autocast():
            logits = self.network(slices)
        logits = log_odds(logits)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, masks)
        dice = _dice(logits[:, None], masks[:, None])
        return {"segmentation_loss": self.baseline.dice * dice + self.baseline.cross_entropy * cross_entropy}

    def joint_losses(self, outlined: Batch, every: Batch) -> dict[str, Tensor]:
        """Cross entropy of the slices on all of them, Dice on those with a mask."""
        with self.autocast():
            classes = self.network.classify(every.slices.to(self.device))
            logits, _ = self.network(outlined.slices.to(self.device))
        cross_entropy = F.binary_cross_entropy_with_logits(log_odds(classes), every.labels.to(self.device))
        dice = _dice(log_odds(logits)[:, None], outlined.masks[:, None].float().to(self.device))
        return {
            "classification_loss": self.baseline.cross_entropy * cross_entropy,
            "segmentation_loss": self.baseline.dice * dice,
        }

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def validate(self, progress: Progress) -> None:
        """Score the network on the validation patients, and keep its weights if they are the best."""
        predictor = NetworkPredictor(self.network, self.config.model, self.dtype)
        scores = validation_scores(predictor(self.validation, progress).masks, self.validation)
        self.report(scores)
        if scores["score"] > self.state.best_score or not (self.folder / BEST).exists():
            self.state.best_score = scores["score"]
            beside = self.folder / f"{BEST}.tmp"
            save_file(self.network.state_dict(), beside)
            os.replace(beside, self.folder / BEST)
        plot_curves(self.state.history, self.folder / "curves.png")

    def report(self, figures: dict[str, float]) -> None:
        """Append one line to the log."""
        so_far = {"step": self.state.step, "seconds": round(self.state.seconds, 2)}
        self.state.report({**so_far, **figures}, self.folder)

    def save_checkpoint(self) -> None:
        """Keep the whole state in the run folder."""
        content = {
            "model": trained_state(self.network),
            "optimiser": self.optimiser.state_dict(),
            "run": vars(self.state),
            "seed": self.seed,
        }
        write_checkpoint(content, self.folder)

    def resume(self) -> None:
        """Go on from the run folder's checkpoint, if it has one.

        Raises:
            SAMMixError: the checkpoint is damaged or belongs to another network or seed.
        """
        content = read_checkpoint(self.folder, self.device)
        if content is None:
            return
        if content["seed"] != self.seed:
            raise SAMMixError(
                f"{self.folder}: the checkpoint has seed {content['seed']}, not {self.seed}; use a new run"
            )
        load_trained_state(self.network, content["model"], self.folder)
        self.optimiser.load_state_dict(content["optimiser"])
        self.state = RunState(**content["run"])
        self.state.rewrite_log(self.folder)
