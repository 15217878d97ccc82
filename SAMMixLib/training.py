"""Joint training of Fig. 1: eq. 3 on every slice, eq. 9 on the few with a mask.

A run folder holds ``config.json``, ``log.jsonl`` (one line a report), ``curves.png``, ``checkpoint.pt`` and, from the
first validated epoch on, ``bundle/``: the best model so far. Every step draws from generators seeded by (seed, step),
so a run that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from SAMMixLib.batches import Batch, SliceBatches, joined, step_seed
from SAMMixLib.bundle import load_base_weights, save_bundle
from SAMMixLib.cam import liver_logit
from SAMMixLib.checkpoint import load_trained_state, read_checkpoint, trained_state, write_checkpoint
from SAMMixLib.config import Config
from SAMMixLib.curves import plot_curves
from SAMMixLib.errors import SAMMixError
from SAMMixLib.losses import activation_loss, classification_loss, outline_loss, segmentation_loss
from SAMMixLib.model import SAMMix, build_model, trainable_counts
from SAMMixLib.prediction import mean_dice, predict_slices
from SAMMixLib.presence import best_presence
from SAMMixLib.progress import Progress, silent
from SAMMixLib.prompts import bounding_boxes, jitter
from SAMMixLib.run_state import RunState
from SAMMixLib.slices import SliceDataset, choose_labelled
from SAMMixLib.views import ViewBatches, Views, make_views, seconds_a_view, stored_features
from SAMMixLib.windowing import windowed

CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 10
VALIDATIONS = 5  # of a run whose steps are given
CLASSIFY, SEGMENT, ACTIVATE = 1, 2, 4  # streams of random numbers


class Trainer:
    """One training run in one folder.

    Args:
        config: model and training.
        train: slices to learn from; masks beyond ``config.training.labelled_slices`` are put aside.
        validation: slices of other patients, scored with the prompt source ``cam``.
        folder: the run folder.
        record: provenance that goes into the bundle (data, licences, purpose).
        labelled: positions of the training slices whose masks are used; drawn by the seed when None.
        device, dtype: where the networks run; bfloat16 means autocast, the weights stay float32.
        base_weights: the file of a ViT backbone's public weights.
        features_folder: where the frozen features of views are kept, for runs that share them; in `folder` when None.
        start: a model of the same config to go on from; a new one when None. Its validation slices may come from the
            training patients: they tell what changes on a user's own scans, not how good it is on others.

    Raises:
        SAMMixError: see :func:`check_training_sets`; or the base weights are missing or not those known.
    """

    def __init__(
        self,
        config: Config,
        train: SliceDataset,
        validation: SliceDataset,
        folder: Path,
        record: dict,
        labelled: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        base_weights: Path | None = None,
        features_folder: Path | None = None,
        start: SAMMix | None = None,
    ) -> None:
        check_training_sets(train, validation)
        if start is None:
            check_split(train, validation)
        settings = config.training
        self.config, self.folder, self.record = config, Path(folder), record
        self.device, self.dtype = torch.device(device), dtype
        if labelled is None:
            count = settings.labelled_slices
            count = int((train.has_mask & train.labels).sum()) if count is None else count
            labelled = choose_labelled(train, count, settings.seed)
        self.labelled = labelled
        # Masks beyond the chosen ones stay unseen.
        train = replace(train, has_mask=np.isin(np.arange(len(train)), self.labelled))
        self.train, self.validation = train, validation_subset(validation, settings.validation_slices)
        self.steps_per_epoch = math.ceil(len(train) / settings.batch_size)
        self.steps = settings.steps or settings.epochs * self.steps_per_epoch
        if settings.steps:
            self.steps_per_epoch = math.ceil(settings.steps / VALIDATIONS)

        torch.manual_seed(settings.seed)
        self.goes_on = start is not None
        self.model = start or build_model(config.model, load_base_weights(config, base_weights))
        if "lora" not in settings.adapts:
            self.model.backbone.image_encoder.requires_grad_(False)
        if "decoder" not in settings.adapts:
            self.model.backbone.mask_decoder.requires_grad_(False)
        self.classifies = settings.learning_rate > 0
        if not self.classifies:
            self.model.classifier.requires_grad_(False)
        self.model.to(self.device)
        self.trainable = trainable_counts(self.model)
        self.averaged = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average), use_buffers=True)
            if settings.weight_average
            else None
        )
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, config), weight_decay=settings.weight_decay)
        self.state = RunState()
        self.features_folder = features_folder or self.folder / "features"
        self.validation_features: np.ndarray | None = None
        self.watch: Callable[[dict], None] = lambda figures: None  # is told what the log is told

    def prepare(self, progress: Progress) -> None:
        """Make the loaders; with views, this is where the encoder's frozen part sees every slice."""
        settings, train, config = self.config.training, self.train, self.config
        every, labelled = np.arange(len(train)), train.select(self.labelled)
        of_all: Views | None = None
        if settings.views:
            backbone, features = self.model.backbone, self.features_folder
            # A classifier of its own never asks for the features of a slice without a mask.
            shared, own = self.model.shares_encoder, every[: len(labelled)]
            seen, chosen = (train, self.labelled) if shared else (labelled, own)
            views = make_views(seen, settings.views, config, backbone, features, self.dtype, progress)
            of_all = views if shared else None
            if settings.labelled_views and len(labelled):
                seen, chosen = labelled, own
                views = make_views(seen, settings.labelled_views, config, backbone, features, self.dtype, progress)
            slices = windowed(self.validation.images, config.model)
            self.validation_features = stored_features(backbone, slices, features, self.dtype, progress)
            self.segment_batches = ViewBatches(seen, views, chosen, config, settings.mask_batch_size, SEGMENT)
        else:
            self.segment_batches = SliceBatches(labelled, config, settings.mask_batch_size, SEGMENT)

        if self.goes_on:
            every = balanced(train.labels)
        half = max(1, settings.batch_size // 2)
        if of_all:
            self.classify_batches = ViewBatches(train, of_all, every, config, settings.batch_size, CLASSIFY)
            self.activate_batches = ViewBatches(seen, views, chosen, config, half, ACTIVATE)
        else:
            self.classify_batches = SliceBatches(train.select(every), config, settings.batch_size, CLASSIFY)
            self.activate_batches = SliceBatches(labelled, config, half, ACTIVATE)

    def seconds_of_labelled_views(self) -> float:
        """Processor seconds that the frozen features of all `labelled_views` take, from those of a few."""
        count = self.config.training.labelled_views * len(self.labelled)
        if not count:
            return 0.0
        few = windowed(self.train.images[self.labelled], self.config.model)
        return count * seconds_a_view(self.model.backbone, few, self.dtype)

    def run(self, progress: Progress = silent, say: Callable[[str], None] = lambda line: None) -> Path:
        """Train to the end, tell of each epoch through `say`, and return the folder of the best bundle."""
        self.prepare(progress)
        saved = time.monotonic()
        while self.state.step < self.steps:
            started = time.process_time()
            losses = self.train_step(self.state.step)
            self.state.seconds += time.process_time() - started
            self.state.step += 1
            if self.state.step % REPORT_STEPS == 0:
                self.report({"step": self.state.step, **losses})
            progress("train", self.state.step, self.steps)
            end_of_epoch = self.state.step % self.steps_per_epoch == 0 or self.state.step == self.steps
            if end_of_epoch:
                say(self.validate(progress))
            if end_of_epoch or time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save_checkpoint()
                saved = time.monotonic()
        return self.folder / "bundle"

    def train_step(self, step: int) -> dict[str, float]:
        """One Adam step on L_cls + lambda * L_seg."""
        settings = self.config.training
        torch.manual_seed(step_seed(settings.seed, step, 0))  # dropout
        scale = learning_rate_scale(step, self.steps, settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = group["full_lr"] * scale
        self.model.train()
        self.model.backbone.eval()  # its batch norms are folded, its dropout is unused; only adapters and decoder learn
        self.model.classifier.train(self.classifies)

        classify = self.classification_batch(step) if self.classifies else None
        segment = self.segment_batches(step) if len(self.labelled) else None
        classification = segmentation = activation = torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if classify is not None:
                classification, activation = self.classification_step(classify)
            if segment is not None:
                segmentation = self.segmentation_step(segment, step)
        loss = classification + settings.segmentation_weight * segmentation + settings.cam_weight * activation
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
        return {
            "classification_loss": classification.item(),
            "segmentation_loss": segmentation.item(),
            "activation_loss": activation.item(),
        }

    def classification_batch(self, step: int) -> Batch:
        """Any slices, and where the activation loss wants them, some more with a mask."""
        batch = self.classify_batches(step)
        if self.config.training.cam_weight and len(self.labelled):
            batch = joined(batch, self.activate_batches(step))
        return batch

    def classification_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Eq. 3 on a batch of all slices, and the activation loss on those of them that have a mask."""
        slices, features = self.on_device(batch)
        maps, labels = self.model.classify(slices, features), batch.labels.to(self.device)
        settings = self.config.training
        classification = classification_loss(liver_logit(maps), labels, settings.classification)
        labelled = batch.has_liver_mask
        if not (settings.cam_weight and labelled.any()):
            return classification, classification.new_zeros(())
        maps, masks = maps[labelled], batch.masks[labelled].to(self.device)
        if settings.cam_loss == "outline":
            return classification, outline_loss(maps, masks, self.config.model.omega)
        return classification, activation_loss(maps, masks)

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The batch's slices, and their features where they are stored or the classifier needs them."""
        slices = batch.slices.to(self.device)
        if batch.features is not None:
            return slices, batch.features.to(self.device)
        return slices, self.model.backbone.begin(slices) if self.model.shares_encoder else None

    def segmentation_step(self, batch: Batch, step: int) -> Tensor:
        """Eq. 9 on a batch of labelled slices; the prompts are constants."""
        masks = batch.masks.to(self.device)
        slices, features = self.on_device(batch)
        self.model.classifier.eval()  # boxes as in use
        with torch.no_grad():
            cams = self.model.activate(self.model.classify(slices, features))
        boxes, usable = self.training_boxes(cams, masks > 0.5, step)
        if not usable.any():
            return slices.new_zeros(())
        embeddings = self.model.embed(slices[usable], None if features is None else features[usable])
        logits, _ = self.model.segment(embeddings, boxes, cams[usable])
        return segmentation_loss(logits, masks[usable], self.config.training.cross_entropy)

    def training_boxes(self, cams: Tensor, masks: Tensor, step: int) -> tuple[list[Tensor], Tensor]:
        """A box for each slice that has one, and which slices those are.

        ``cam`` takes the paper's boxes, ``truth`` those of the masks with jitter, ``mixed`` draws between them: the
        decoder must learn to correct imperfect boxes. A CAM that is empty early in training falls back on the mask.
        """
        settings, model = self.config.training, self.config.model
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step, 3))
        of_cam = self.model.prompt(cams, torch.full(cams.shape[:1], torch.inf, device=cams.device))
        of_mask = bounding_boxes(masks, "one", model.padding)
        of_mask = [jitter(box, settings.jitter, model.size, generator) for box in of_mask]
        share = {"cam": 1.0, "truth": 0.0, "mixed": 0.5}[settings.boxes]
        take_cam = torch.rand(len(cams), generator=generator) < share
        boxes = [a if take and len(a) else b for a, b, take in zip(of_cam, of_mask, take_cam, strict=True)]
        usable = torch.tensor([len(box) > 0 for box in boxes], device=cams.device)
        return [box for box in boxes if len(box)], usable

    @property
    def kept_model(self) -> SAMMix:
        """The model that is validated and stored: the averaged one where there is one."""
        return self.model if self.averaged is None else self.averaged.module

    @property
    def kept_config(self) -> Config:
        """The config with the `presence` that the last validation chose, if it chose one."""
        if self.state.presence is None:
            return self.config
        return replace(self.config, model=replace(self.config.model, presence=self.state.presence))

    def validate(self, progress: Progress) -> str:
        """Score the epoch on the validation patients, keep the bundle if it is the best, and say so in a line."""
        started = time.monotonic()
        model = self.kept_model
        if self.classifies:
            model.config = replace(self.config.model, presence=0.0)
        found = predict_slices(
            model, self.validation, "cam", dtype=self.dtype, progress=progress, features=self.validation_features
        )
        masks = found.masks
        if self.classifies:
            self.state.presence = best_presence(found.p_liver, masks, self.validation.masks)
            masks = masks & (found.p_liver >= self.state.presence)[:, None, None]
        scores = validation_scores(masks, self.validation)
        epoch = self.state.step // self.steps_per_epoch
        seconds = round(time.monotonic() - started, 1)
        self.report({"step": self.state.step, "epoch": epoch, **scores, "validation_seconds": seconds})
        if scores["score"] > self.state.best_score or not (self.folder / "bundle").exists():
            self.state.best_score = scores["score"]
            training = {**self.record, "epoch": epoch, "labelled_slices": len(self.labelled), "prompt": "cam", **scores}
            save_bundle(model, self.kept_config, training, self.folder / "bundle", replace=True)
        plot_curves(self.state.history, self.folder / "curves.png")
        return (
            f"epoch {epoch}: validation Dice {scores['validation_dice']:.4f} on liver slices, "
            f"{scores['false_mask_rate']:.1%} of the others got a mask (prompt source cam)"
        )

    def report(self, figures: dict) -> None:
        """Append one line to the log, and tell who watches."""
        self.watch(figures)
        self.state.report(figures, self.folder)

    def save_checkpoint(self) -> None:
        """Keep the whole state in the run folder."""
        content = {
            "model": trained_state(self.model),
            "averaged": None if self.averaged is None else trained_state(self.averaged.module),
            "averaged_steps": 0 if self.averaged is None else int(self.averaged.n_averaged),
            "optimiser": self.optimiser.state_dict(),
            "run": vars(self.state),
        }
        write_checkpoint(content, self.folder)

    def resume(self) -> None:
        """Go on from the run folder's checkpoint, if it has one.

        Raises:
            SAMMixError: the checkpoint is damaged or belongs to another config.
        """
        content = read_checkpoint(self.folder, self.device)
        if content is None:
            return
        load_trained_state(self.model, content["model"], self.folder)
        if self.averaged is not None:
            load_trained_state(self.averaged.module, content["averaged"], self.folder)
            self.averaged.n_averaged.fill_(content["averaged_steps"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.state = RunState(**content["run"])
        self.state.rewrite_log(self.folder)


def check_training_sets(train: SliceDataset, validation: SliceDataset) -> None:
    """Say what is wrong with the data before anything starts.

    Raises:
        SAMMixError: a set is empty, or lacks slices with or without liver or with a mask.
    """
    for name, data in (("training", train), ("validation", validation)):
        if not data.labels.any():
            raise SAMMixError(f"the {name} set has no slice with liver; add scans that show the liver")
        if not (data.labels & data.has_mask).any():
            raise SAMMixError(f"the {name} set has no liver mask; add at least one slice with a mask")
    if train.labels.all():
        raise SAMMixError("the training set has no slice without liver; add slices above or below the liver")


def balanced(labels: np.ndarray) -> np.ndarray:
    """Positions of all slices, those of the rarer label as often as the others: a user marks few without liver."""
    with_liver, without = np.flatnonzero(labels), np.flatnonzero(~labels)
    count = max(len(with_liver), len(without))
    return np.concatenate([np.resize(with_liver, count), np.resize(without, count)])


def check_split(train: SliceDataset, validation: SliceDataset) -> None:
    """Scores mean something for new patients only if no patient is on both sides.

    Raises:
        SAMMixError: one is.
    """
    shared = sorted(set(train.patients) & set(validation.patients))
    if shared:
        raise SAMMixError(f"patient {shared[0]} is in the training and in the validation set; split by patient")


def validation_subset(validation: SliceDataset, count: int | None) -> SliceDataset:
    """The slices that can be scored; at most `count`, evenly spread over each patient and the scan."""
    validation = validation.select(validation.has_mask | ~validation.labels)
    if count is None or count >= len(validation):
        return validation
    order = np.lexsort((validation.indices, validation.patients))
    return validation.select(order[((np.arange(count) + 0.5) * len(order) / count).astype(int)])


def validation_scores(masks: np.ndarray, validation: SliceDataset) -> dict[str, float]:
    """What is said of predicted masks ``[n, S, S]`` after an epoch; `score` decides which epoch is the best."""
    positive, with_mask = validation.labels, masks.any(axis=(1, 2))
    return {
        "validation_dice": mean_dice(masks[positive], validation.masks[positive]),
        "false_mask_rate": float(with_mask[~positive].mean()) if (~positive).any() else 0.0,
        "score": mean_dice(masks, validation.masks),
    }


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
