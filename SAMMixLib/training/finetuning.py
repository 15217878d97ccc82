"""From a training set of a user's own slices to a better model for that scanner, in minutes.

Masks of a few slices move the decoder and the adapters of the encoder's last blocks. Nothing of the data that the
parent learned from is at hand, so what it knows is kept in three ways: its classifier stays as it is, small steps are
taken from its weights, and the result lies between parent and child (Wortsman et al., "Robust fine-tuning of zero-shot
models", 2022). Image-level labels teach the new classifier that another structure gets; else they take part in the
comparison.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from SAMMixLib.config import FINE_TUNING, Config
from SAMMixLib.data.slices import SliceDataset, read_slices
from SAMMixLib.data.training_set import TrainingSet
from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.files import write_text
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictor
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.models.build import build_classifier
from SAMMixLib.models.bundle import load_bundle, save_bundle
from SAMMixLib.models.card import Bundle, dice_text, open_bundle
from SAMMixLib.models.registry import find_model
from SAMMixLib.structure import Structure
from SAMMixLib.training.checkpoint import load_trained_state, trained_state
from SAMMixLib.training.sets import TrainingData
from SAMMixLib.training.trainer import Trainer

HELD_OUT = 5  # every so manieth slice is kept for the comparison
KEPT = 0.5  # share of the parent's weights in the result
NEW_CLASSIFIER = {"learning_rate": 1e-3, "cam_weight": 1.0, "steps": 300}
PLAN = "plan.json"


@dataclass
class Tuned:
    """A fine-tuned model beside its parent on the n held-out slices of S x S.

    Dice is the mean per slice with prompt source ``cam``; a mask on a slice without the structure counts 0.
    """

    bundle: Path
    before: float
    after: float
    held_out: list[tuple[str, int]]  # patient, slice
    images: np.ndarray  # int16 [n, S, S], HU
    references: np.ndarray  # uint8 [n, S, S]
    before_masks: np.ndarray  # bool [n, S, S]
    after_masks: np.ndarray  # bool [n, S, S]
    masks: int  # learned from
    labels: int  # slices with an image-level label, the masks among them; a new classifier learns from them
    seconds: float

    @property
    def better(self) -> bool:
        return self.after > self.before

    @property
    def warning(self) -> str:
        """What to tell before this model is used; empty where nothing speaks against it."""
        if self.better:
            return ""
        before, after = dice_text(self.before), dice_text(self.after)
        return f"On the slices kept aside it is no better than before: Dice {before} before, {after} now."


@dataclass(frozen=True)
class FineTuning:
    """How a fine-tuning is run.

    Args:
        preset: ``quick`` or ``full``, see :data:`SAMMixLib.config.FINE_TUNING`.
        seed: of the slices held out, batches and augmentation.
        base_weights: the file of a ViT backbone's public weights.
        watch: is told ``{"step", "steps", "loss"}`` every few steps, ``{"step", "steps", "validation_dice"}``, and
            ``{"step", "steps", "checkpoint"}`` when a run that is killed goes on from this step.
    """

    preset: str = "quick"
    seed: int = 0
    base_weights: Path | None = None
    watch: Callable[[dict], None] = lambda figures: None

    def config(self, parent: Config, same_structure: bool) -> Config:
        """The parent's config with this training; raises SAMMixError where the preset is unknown."""
        if self.preset not in FINE_TUNING:
            raise SAMMixError(f"preset {self.preset!r} is none of {', '.join(FINE_TUNING)}")
        changes = {} if same_structure else NEW_CLASSIFIER
        return replace(parent, training=replace(FINE_TUNING[self.preset], seed=self.seed, **changes))


def fine_tune(
    slices: str | Path,
    parent: str | Path,
    run: str | Path,
    how: FineTuning = FineTuning(),
    runtime: Runtime = Runtime(),
) -> Tuned:
    """Train `parent` on the training set in the folder `slices`, and compare both on the slices held out.

    A set of another structure than the parent's gets a new classifier, and nothing is kept of the parent's weights
    then. The same set, parent, preset and seed give the same weights; called again on the folder of a run that was
    killed, it goes on.

    Args:
        parent: name or folder of a model.
        run: the run folder; the new model stands in ``bundle`` there.
        runtime: as for :class:`~SAMMixLib.training.trainer.Trainer`.

    Raises:
        SAMMixError: the set cannot be trained on, or the run folder belongs to another training.
    """
    started = time.monotonic()
    source, run = open_bundle(find_model(parent)), Path(run)
    structure = TrainingSet.open(Path(slices)).structure
    same = structure.code == source.structure.code
    config = how.config(source.config, same)
    data = read_slices(slices, config.model.size)
    check_set(data, structure.name)
    held_out = hold_out(data, how.seed)
    train, validation = data.select(~held_out), data.select(held_out)
    plan = {"slices": _fingerprint(data), "parent": source.card["sha256"], "preset": how.preset, "seed": how.seed}
    _own(run, plan)

    before = load_bundle(source.folder, how.base_weights).to(runtime.device).eval()
    start = load_bundle(source.folder, how.base_weights)
    if not same:
        torch.manual_seed(how.seed)
        start.classifier = build_classifier(config.model, start.backbone)
    labelled = np.flatnonzero(train.labels & train.has_mask)
    trainer = Trainer(config, TrainingData(train, validation, labelled, same_patients=True), run, start, runtime)
    trainer.watch = lambda figures: how.watch(_figures(figures, trainer.steps))
    trainer.resume()
    trainer.run()

    config = trainer.kept_config
    model = trainer.kept_model.with_config(config.model)
    if same:
        blend(model, before, KEPT)
    else:
        threshold = config.model.prompt_threshold  # the parent's thresholds fit the parent's classifier only
        rule = config.volume.gate if structure.single else "hysteresis"  # a lone interval is of one organ
        config = replace(config, volume=replace(config.volume, gate=rule, gate_high=threshold, gate_low=threshold))
    tuned = _compared(trainer, before, model, started)
    save_bundle(model, config, _record(tuned, source, structure, how), tuned.bundle, replace=True)
    return tuned


def _compared(trainer: Trainer, before: SAMMix, after: SAMMix, started: float) -> Tuned:
    """Both models on the slices held out."""
    held_out = trainer.data.validation
    of_parent, of_child = (
        SlicePredictor(model, trainer.runtime)(held_out, "cam", trainer.validation_features)
        for model in (before, after)
    )
    return Tuned(
        bundle=trainer.folder / "bundle",
        before=mean_dice(of_parent.masks, held_out.masks),
        after=mean_dice(of_child.masks, held_out.masks),
        held_out=[(str(p), int(k)) for p, k in zip(held_out.patients, held_out.indices, strict=True)],
        images=held_out.images,
        references=held_out.masks,
        before_masks=of_parent.masks,
        after_masks=of_child.masks,
        masks=len(trainer.labelled),
        labels=len(trainer.data.train),
        seconds=time.monotonic() - started,
    )


def check_set(data: SliceDataset, structure: str) -> None:
    """Say what a training set lacks before anything starts.

    Raises:
        SAMMixError: it lacks slices with or without the structure, or two slices with a mask: one to learn from, one
            to compare on.
    """
    with_mask = data.has_mask & data.labels
    empty = with_mask & ~data.masks.any(axis=(1, 2))
    if not data.labels.any():
        raise SAMMixError(f"no slice of the training set shows the {structure}; add some that do")
    if data.labels.all():
        raise SAMMixError(f"every slice of the training set shows the {structure}; add some that do not")
    if empty.any():
        patient, k = data.patients[empty][0], data.indices[empty][0]
        raise SAMMixError(f"the mask of slice {k} of {patient} is empty; draw it, or say that there is no {structure}")
    if with_mask.sum() < 2:
        count = "one slice" if with_mask.any() else "no slice"
        raise SAMMixError(f"{count} of the training set has a mask; correct at least 2: one is kept for comparison")


def hold_out(data: SliceDataset, seed: int) -> np.ndarray:
    """Bool [n]: every fifth of the slices with a mask, and of those without the structure; drawn by `seed`.

    At least one with a mask, and no negative where there are fewer than five.
    """
    random, held = np.random.default_rng(seed), np.zeros(len(data.labels), bool)
    for group, least in ((data.labels & data.has_mask, 1), (~data.labels, 0)):
        members = random.permutation(np.flatnonzero(group))
        held[members[: max(least, len(members) // HELD_OUT)]] = True
    return held


def blend(model: SAMMix, parent: SAMMix, share: float) -> None:
    """Move what was trained of `model` by `share` of the way back to `parent`, in place."""
    old, new = trained_state(parent), trained_state(model)
    mixed = {
        name: torch.lerp(value, old[name].to(value), share) if value.is_floating_point() else value
        for name, value in new.items()
    }
    load_trained_state(model, mixed, Path("parent"))


def _own(run: Path, plan: dict) -> None:
    """Make the run folder, or find that it is this very training's."""
    path = run / PLAN
    try:
        if path.is_file():
            if path.read_text(encoding="utf-8") != json.dumps(plan) + "\n":
                raise SAMMixError(
                    f"{run}: belongs to another training set, model, preset or seed; choose another folder"
                )
            return
        run.mkdir(parents=True, exist_ok=True)
        if any(run.iterdir()):
            raise SAMMixError(f"{run}: holds something else than a fine-tuning; choose a new folder")
        write_text(path, json.dumps(plan) + "\n")
    except OSError as error:
        raise SAMMixError(f"{run}: cannot be written ({error.strerror}); choose another folder") from None


def _fingerprint(data: SliceDataset) -> str:
    digest = hashlib.sha256()
    for part in (data.images, data.masks, data.labels, data.has_mask, data.indices):
        digest.update(np.ascontiguousarray(part))
    digest.update("\n".join(data.patients).encode())
    return digest.hexdigest()


def _figures(figures: dict, steps: int) -> dict:
    """What a plot of the training shows of a line of its log."""
    shown = {"step": figures["step"], "steps": steps}
    for name in ("validation_dice", "checkpoint"):
        if name in figures:
            return shown | {name: figures[name]}
    losses = ("classification_loss", "segmentation_loss", "activation_loss")
    return shown | {"loss": sum(figures[name] for name in losses)}


def _record(tuned: Tuned, source: Bundle, structure: Structure, how: FineTuning) -> dict:
    """The training record of the new bundle's card; data and licence of the parent stay named."""
    return {
        "name": tuned.bundle.parent.name,
        "structure": structure.to_dict(),
        "license": source.card["license"],
        "provenance": [*source.card.get("provenance", []), f"{tuned.masks} slices with a mask of the user's own"],
        "parent": {"name": source.name, "sha256": source.card["sha256"]},
        "data": f"{tuned.labels} slices, {tuned.masks} of them with a mask",
        "split": f"{len(tuned.held_out)} slices held out, of the same scans",
        "preset": how.preset,
        "seed": how.seed,
        "labelled_slices": tuned.masks,
        "prompt": "cam",
        "before": tuned.before,
        "after": tuned.after,
        "date": datetime.date.today().isoformat(),
    }
