"""Joint training of Fig. 1: the classification loss on every slice, the segmentation loss on the few with a mask.

A run folder holds ``log.jsonl`` (one line a report), ``curves.png``, ``checkpoint.pt`` and, from the first validated
epoch on, ``bundle/``: the best model so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from SAMMixLib.config import Config
from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictor
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.method.windowing import windowed
from SAMMixLib.models.base_weights import load_base_weights
from SAMMixLib.models.build import build_model, trainable_counts
from SAMMixLib.models.bundle import save_bundle
from SAMMixLib.training.checkpoint import load_trained_state, trained_state
from SAMMixLib.training.curves import plot_curves
from SAMMixLib.training.feature_cache import FeatureCache, ViewBatches
from SAMMixLib.training.loaders import ACTIVATE, CLASSIFY, SEGMENT, Batch, SliceBatches, joined, step_seed
from SAMMixLib.training.loop import Budget, TrainingRun, set_learning_rate
from SAMMixLib.training.objective import Objective
from SAMMixLib.training.sets import TrainingData, balanced
from SAMMixLib.training.validation import best_prompt_threshold, validation_scores, validation_subset

VALIDATIONS = 5  # of a run whose steps are given

Batches = Callable[[int], Batch]


class Loaders(NamedTuple):
    """A batch of each kind for each step."""

    classify: Batches  # any slices
    segment: Batches  # labelled slices
    activate: Batches  # labelled slices, for the activation loss


def new_model(config: Config, base_weights: Path | None = None) -> SAMMix:
    """An untrained model of a config, the same for the same seed.

    Raises:
        SAMMixError: a ViT backbone's weights are not given, damaged, or other ones.
    """
    torch.manual_seed(config.training.seed)
    return build_model(config.model, load_base_weights(config, base_weights))


class Trainer(TrainingRun):
    """One training run of SAM-Mix in one folder.

    Args:
        config: model and training.
        data: slices to learn from and to score on, with the prompt source ``cam``; of the masks those count that are
            listed, or ``config.training.labelled_slices`` drawn by the seed.
        folder: the run folder.
        model: a new one (:func:`new_model`), or a trained one of the same config to go on from.
        runtime: bfloat16 means autocast, the weights stay float32.

    Attributes:
        record: provenance that goes into the bundle (data, licences, purpose).
        features_folder: where the frozen features of views are kept, for runs that share them.

    Raises:
        SAMMixError: see :meth:`TrainingData.check`.
    """

    def __init__(
        self, config: Config, data: TrainingData, folder: Path, model: SAMMix, runtime: Runtime = Runtime()
    ) -> None:
        settings = config.training
        data.check()
        self.config, self.data = config, data.with_labelled(settings.labelled_slices, settings.seed)
        self.validation = validation_subset(data.validation, settings.validation_slices)
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.steps = settings.steps or settings.epochs * self.steps_per_epoch
        if settings.steps:
            self.steps_per_epoch = math.ceil(settings.steps / VALIDATIONS)
        super().__init__(folder, Budget(steps=self.steps), runtime)
        self.record: dict[str, Any] = {}
        self.features_folder = self.folder / "features"
        self.model = self._with_what_learns(model)
        self.objective = Objective(self.model, config, runtime)
        self.averaged = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average), use_buffers=True)
            if settings.weight_average
            else None
        )
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, config), weight_decay=settings.weight_decay)

    def _with_what_learns(self, model: SAMMix) -> SAMMix:
        """The model on its device, with gradients where the config lets something learn."""
        settings = self.config.training
        if "lora" not in settings.adapts:
            model.backbone.image_encoder.requires_grad_(False)
        if "decoder" not in settings.adapts:
            model.backbone.mask_decoder.requires_grad_(False)
        self.classifies = settings.learning_rate > 0
        if not self.classifies:
            model.classifier.requires_grad_(False)
        self.trainable = trainable_counts(model)
        return model.to(self.runtime.device)

    @property
    def labelled(self) -> np.ndarray:
        """Positions of the training slices whose masks count."""
        assert self.data.labelled is not None
        return self.data.labelled

    @cached_property
    def features(self) -> FeatureCache:
        return FeatureCache(self.model.backbone, self.features_folder, self.runtime)

    @cached_property
    def validation_features(self) -> np.ndarray | None:
        """Of the validation slices, where the config wants stored features."""
        if not self.config.training.views:
            return None
        return self.features.features(windowed(self.validation.images, self.config.model))

    @cached_property
    def loaders(self) -> Loaders:
        """With views, this is where the encoder's frozen part sees every slice."""
        settings, train, config = self.config.training, self.data.train, self.config
        every, labelled = np.arange(len(train)), train.select(self.labelled)
        if self.data.same_patients:
            every = balanced(train.labels)
        half = max(1, settings.batch_size // 2)
        if not settings.views:
            return Loaders(
                SliceBatches(train.select(every), config, settings.batch_size, CLASSIFY),
                SliceBatches(labelled, config, settings.mask_batch_size, SEGMENT),
                SliceBatches(labelled, config, half, ACTIVATE),
            )
        # A classifier of its own never asks for the features of a slice without a mask.
        own = np.arange(len(labelled))
        of_all = self.features.views(train, settings.views, config) if self.model.shares_encoder else None
        if settings.labelled_views and len(labelled):
            views, chosen = self.features.views(labelled, settings.labelled_views, config), own
        elif of_all is not None:
            views, chosen = of_all, self.labelled
        else:
            views, chosen = self.features.views(labelled, settings.views, config), own
        segment = ViewBatches(views, chosen, config, settings.mask_batch_size, SEGMENT)
        if of_all is None:
            classify = SliceBatches(train.select(every), config, settings.batch_size, CLASSIFY)
            return Loaders(classify, segment, SliceBatches(labelled, config, half, ACTIVATE))
        classify = ViewBatches(of_all, every, config, settings.batch_size, CLASSIFY)
        return Loaders(classify, segment, ViewBatches(views, chosen, config, half, ACTIVATE))

    def seconds_of_labelled_views(self) -> float:
        """Processor seconds that the frozen features of all `labelled_views` take, from those of a few."""
        count = self.config.training.labelled_views * len(self.labelled)
        if not count:
            return 0.0
        few = windowed(self.data.train.images[self.labelled], self.config.model)
        return count * self.features.seconds_a_view(few)

    def train_step(self, step: int) -> dict[str, float]:
        """One Adam step on L_cls + lambda L_seg."""
        settings = self.config.training
        torch.manual_seed(step_seed(settings.seed, step, 0))  # dropout
        set_learning_rate(self.optimiser, learning_rate_scale(step, self.steps, settings.warmup))
        self.model.train()
        self.model.backbone.eval()  # its batch norms are folded, its dropout is unused; only adapters and decoder learn
        self.model.classifier.train(self.classifies)
        classify = self._classification_batch(step) if self.classifies else None
        segment = self.loaders.segment(step) if len(self.labelled) else None
        losses = self.objective(classify, segment, step)
        loss = self.objective.total(losses)
        if not torch.isfinite(loss):
            raise SAMMixError(
                f"{self.folder}: the loss is not a number at step {step}; lower learning_rate in the config"
            )
        self.optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:  # not where nothing but masks teaches, and augmentation moved the liver out of them all
            loss.backward()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], 1.0)
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return {name: value.item() for name, value in losses.items()}

    def _classification_batch(self, step: int) -> Batch:
        """Any slices, and where the activation loss wants them, some more with a mask."""
        batch = self.loaders.classify(step)
        if self.config.training.cam_weight and len(self.labelled):
            batch = joined(batch, self.loaders.activate(step))
        return batch

    @property
    def kept_model(self) -> SAMMix:
        """The model that is validated and stored: the averaged one where there is one."""
        return self.model if self.averaged is None else cast("SAMMix", self.averaged.module)

    @property
    def kept_config(self) -> Config:
        """The config with the prompt threshold that the last validation chose, if it chose one."""
        threshold = self.state.prompt_threshold
        if threshold is None:
            return self.config
        return replace(self.config, model=replace(self.config.model, prompt_threshold=threshold))

    def validation_due(self, before: float) -> bool:
        """After each epoch, and at the end."""
        return self.state.step % self.steps_per_epoch == 0 or self.state.step == self.steps

    def validate(self) -> str:
        """Score the epoch on the validation patients, keep the bundle if it is the best, and say so in a line."""
        started = time.monotonic()
        predict = SlicePredictor(self.kept_model, self.runtime, prompt_all=self.classifies)
        found = predict(self.validation, "cam", self.validation_features)
        masks = found.masks
        if self.classifies:
            threshold = best_prompt_threshold(found.p_liver, masks, self.validation.masks)
            self.state.prompt_threshold = threshold
            masks = masks & (found.p_liver >= threshold)[:, None, None]
        scores = validation_scores(masks, self.validation)
        epoch = self.state.step // self.steps_per_epoch
        self.report({"epoch": epoch, **scores, "validation_seconds": round(time.monotonic() - started, 1)})
        if scores["score"] > self.state.best_score or not (self.folder / "bundle").exists():
            self.state.best_score = scores["score"]
            training = {**self.record, "epoch": epoch, "labelled_slices": len(self.labelled), "prompt": "cam", **scores}
            save_bundle(self.kept_model, self.kept_config, training, self.folder / "bundle", replace=True)
        plot_curves(self.state.history, self.folder / "curves.png")
        return (
            f"epoch {epoch}: validation Dice {scores['validation_dice']:.4f} on liver slices, "
            f"{scores['false_mask_rate']:.1%} of the others got a mask (prompt source cam)"
        )

    def checkpoint(self) -> dict[str, Any]:
        """Weights, their moving average, and the optimiser."""
        return {
            "model": trained_state(self.model),
            "averaged": None if self.averaged is None else trained_state(self.averaged.module),
            "averaged_steps": 0 if self.averaged is None else int(self.averaged.n_averaged),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Put back what :meth:`checkpoint` gave; raises SAMMixError where it belongs to another config."""
        load_trained_state(self.model, content["model"], self.folder)
        if self.averaged is not None:
            load_trained_state(self.averaged.module, content["averaged"], self.folder)
            self.averaged.n_averaged.fill_(content["averaged_steps"])
        self.optimiser.load_state_dict(content["optimiser"])


def parameter_groups(model: SAMMix, config: Config) -> list[dict]:
    """The classifier at the full rate, adapters and decoder at the rate of pretrained parts."""
    new = [p for p in model.classifier.parameters() if p.requires_grad]
    pretrained = [p for p in model.backbone.parameters() if p.requires_grad]
    rates = (config.training.learning_rate, config.training.pretrained_learning_rate)
    groups = zip((new, pretrained), rates, strict=True)
    return [{"params": params, "lr": rate, "full_lr": rate} for params, rate in groups]


def learning_rate_scale(step: int, steps: int, warmup: float) -> float:
    """1 throughout without `warmup`; else a linear rise over that share of the steps, then a cosine to 0."""
    if not warmup:
        return 1.0
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))
