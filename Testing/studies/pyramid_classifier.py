"""The pyramid classifier of the next starter, trained apart on many augmented slices: cheaper than joint training.

    python Testing/studies/pyramid_classifier.py DATA -o RUN

Data, held-out patients and config are those of ``Resources/recipes/next-starter.json``. The first steps see slices of
half the size, which cost a quarter; a classifier that sees no others is poor at the full size. A killed run goes on
with the last hundred steps. In the end it prints what the classifier says of the held-out patients, and writes a
bundle: the new classifier with the starter's adapters and decoder, which have not learned from its boxes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.evaluation.bootstrap import roc_auc
from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.inference.device import Runtime
from SAMMixLib.method.cam import class_activation_map, liver_logit
from SAMMixLib.method.losses import classification_loss, outline_loss
from SAMMixLib.method.prompts import binary_mask
from SAMMixLib.method.windowing import windowed
from SAMMixLib.models.build import build_classifier
from SAMMixLib.models.bundle import load_bundle, save_bundle
from SAMMixLib.models.registry import find_model
from SAMMixLib.process import tune_process
from SAMMixLib.training.recipe import Recipe, read_recipe
from SAMMixLib.training.scanners import imitate_scanners
from SAMMixLib.training.trainer import learning_rate_scale

RECIPE = Path(__file__).parents[2] / "Resources" / "recipes" / "next-starter.json"
TIP, SMALL = 200, 800  # pixels of liver below which a slice is drawn more often
FEWEST = 3  # pixels: what counts as liver after the slice was moved
EVERY = 100  # steps between checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--coarse", type=int, default=900, help="steps on slices of half the size")
    parser.add_argument("--fine", type=int, default=600, help="steps on whole slices")
    parser.add_argument("--parent", type=Path, help="bundle whose pyramid is gone on with, at half the learning rate")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()
    options.output.mkdir(parents=True, exist_ok=True)

    recipe = read_recipe(RECIPE, options.data)
    config = recipe.config
    train_set, held_out, _ = recipe.read()
    parent = load_bundle(find_model("starter"))
    torch.manual_seed(config.training.seed)
    classifier = build_classifier(config.model, parent.backbone).to(memory_format=torch.channels_last)
    shares = draw_shares(train_set, recipe)
    if options.parent is not None:
        config = replace(config, training=replace(config.training, learning_rate=config.training.learning_rate / 2))
        classifier.load_state_dict(load_bundle(options.parent).classifier.state_dict())
        calm(classifier, config, train_set.images[:: len(train_set) // 200])
    train(classifier, config, train_set, shares, (options.coarse, options.fine), options.output / "checkpoint.pt")
    report(classifier.eval(), config, held_out)
    parent.classifier = classifier
    record = {"name": "pyramid", "seed": config.training.seed, "split": recipe.record["split"]}
    save_bundle(parent, config, record, options.output / "bundle", replace=True)


@torch.no_grad()
def calm(classifier: nn.Module, config: Config, images: np.ndarray) -> None:
    """Scale the head so that the log-odds are small: where maps were pooled by their average, their peaks are huge."""
    classifier.eval()
    parts = [classifier(windowed(images[k : k + 8], config.model)) for k in range(0, len(images), 8)]
    logits = liver_logit(torch.cat(parts), config.model.pooling)
    classifier.head.weight.mul_(4 / logits.abs().median())


def draw_shares(data: SliceDataset, recipe: Recipe) -> np.ndarray:
    """How often each slice is drawn, [n], in all 1: six in ten with liver; small ones and rare patients more often."""
    persons = np.array([recipe.same.get(name, name) for name in data.patients])
    _, owner, counts = np.unique(persons, return_inverse=True, return_counts=True)
    share = 1 / np.sqrt(counts[owner])
    area = data.masks.sum(axis=(1, 2))
    for size, often in ((SMALL, 2.5), (TIP, 2.0)):
        share[data.labels & (area < size)] *= often
    for group, part in ((data.labels, 0.6), (~data.labels, 0.4)):
        share[group] *= part / share[group].sum()
    return share


def train(
    classifier: nn.Module,
    config: Config,
    data: SliceDataset,
    shares: np.ndarray,
    phases: tuple[int, int],
    checkpoint: Path,
) -> None:
    """Leave the moving average of the weights in the classifier; a checkpoint is gone on with."""
    settings, (coarse, fine) = config.training, phases
    averaged = AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    optimiser = torch.optim.AdamW(classifier.parameters(), weight_decay=settings.weight_decay)
    learns, first = {"classifier": classifier, "averaged": averaged, "optimiser": optimiser}, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first = state.pop("step")
        for name, part in learns.items():
            part.load_state_dict(state[name])
    for step in range(first, coarse + fine):
        random = np.random.default_rng((settings.seed, step))
        chosen = np.sort(random.choice(len(data), settings.batch_size, p=shares))
        hu, masks = (torch.from_numpy(part[chosen].astype(np.float32)) for part in (data.images, data.masks))
        generator = torch.Generator().manual_seed(int(random.integers(2**31)))
        size = config.model.size // 2 if step < coarse else config.model.size
        hu, masks = imitate_scanners(hu, masks, generator, size)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_scale(step, coarse + fine, settings.warmup)
        loss = losses(classifier.train(), config, windowed(hu.numpy(), config.model), masks)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(classifier)
        if step % 25 == 0:
            print(f"step {step} of {coarse + fine}: loss {loss.item():.3f}", flush=True)
        if (step + 1) % EVERY == 0 or step + 1 == coarse + fine:
            states = {name: part.state_dict() for name, part in learns.items()}
            torch.save(states | {"step": step + 1}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    classifier.load_state_dict(averaged.module.state_dict())


def losses(classifier: nn.Module, config: Config, slices: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Those of the recipe on a classifier alone; bfloat16, where the processor multiplies in it, halves the time."""
    labels = (masks.sum(dim=(1, 2)) > FEWEST).float()
    with Runtime.choose("cpu").autocast():
        maps = classifier(slices).float()
    loss = classification_loss(liver_logit(maps, config.model.pooling), labels, config.training.classification)
    return loss + outline_loss(maps[labels > 0], masks[labels > 0], config.model.omega)


@torch.inference_mode()
def report(classifier: nn.Module, config: Config, data: SliceDataset) -> None:
    """AUC of p(liver) on the patients held out, and the Dice of the CAM's own mask."""
    parts = [classifier(windowed(data.images[k : k + 8], config.model)) for k in range(0, len(data), 8)]
    area = roc_auc(liver_logit(torch.cat(parts), config.model.pooling).numpy(), data.labels, data.patients, seed=0)
    found = [binary_mask(class_activation_map(part, config.model.size), config.model.omega).numpy() for part in parts]
    dice = mean_dice(np.concatenate(found)[data.labels], data.masks[data.labels])
    print(
        f"AUC {area.value:.4f} ({area.low:.4f} to {area.high:.4f}), {area.patients} patients; CAM as mask: {dice:.4f}"
    )


if __name__ == "__main__":
    main()
