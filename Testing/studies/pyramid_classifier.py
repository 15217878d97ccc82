"""A pyramid classifier for the starter, trained apart on many augmented slices, and its answers out of fold.

    python Testing/studies/pyramid_classifier.py DATA --fold 0 -o RUN

All LiTS patients and the other patients of MSD Task03 stand in five folds; fold 0 holds the starter's old validation
patients. A run leaves one fold out, prints what its classifier says of that fold, and writes a bundle: the new
classifier with the starter's adapters and decoder. The first phase sees slices of half the size, which cost a quarter.
A killed run goes on with the phase that it was in. Slices of ``more/negatives`` teach, too: half of the files, as the
other half are tests.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from SAMMixLib.bundle import load_bundle, open_bundle, save_bundle
from SAMMixLib.cam import class_activation_map, liver_logit
from SAMMixLib.config import ModelConfig
from SAMMixLib.intervals import roc_auc
from SAMMixLib.losses import classification_loss, outline_loss
from SAMMixLib.model import build_classifier
from SAMMixLib.models import find_model
from SAMMixLib.prediction import mean_dice
from SAMMixLib.prompts import binary_mask
from SAMMixLib.runtime import tune_process
from SAMMixLib.scanners import DARKEST, imitate_scanners
from SAMMixLib.slices import SliceDataset, read_slices
from SAMMixLib.training import learning_rate_scale
from SAMMixLib.windowing import windowed

VALIDATION = ("volume-012", "volume-029", "volume-041", "volume-048")  # of the old starter
SAME = {  # MSD Task03 patients that are LiTS patients, by comparing all slices
    "10001": "volume-000", "10003": "volume-010", "10012": "volume-011", "10023": "volume-012", "10034": "volume-014",
    "10036": "volume-016", "10038": "volume-018", "10043": "volume-022", "10050": "volume-029", "10051": "volume-003",
    "10052": "volume-030", "10054": "volume-032", "10056": "volume-034", "10057": "volume-035", "10059": "volume-037",
    "10061": "volume-039", "10063": "volume-040", "10064": "volume-041", "10066": "volume-043", "10069": "volume-046",
    "10071": "volume-048", "10073": "volume-005", "10074": "volume-050", "10095": "volume-007", "10106": "volume-008",
}  # fmt: skip
NEGATIVES = ("rtpelvis_1", "rtpelvis_2", "thorax_covid_ny_sbu", "deeplesion_000010")
FOLDS, BATCH, SMALL, WARMUP = 5, 24, 800, 0.05  # SMALL: pixels of liver; such slices are drawn more often
MODEL = {"classifier": "pyramid", "classifier_width": 0.75}
VOLUME = {"gate_high": 0.7, "gate_low": 0.3, "one_interval": True}


class Phase(NamedTuple):
    """A cosine from `rate` to 0."""

    coarse: int  # steps on slices of half the size
    fine: int
    rate: float


PHASES = (Phase(900, 300, 2e-3), Phase(0, 320, 1.5e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fold", type=int, choices=range(FOLDS), default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()
    options.output.mkdir(parents=True, exist_ok=True)

    data = read(options.data)
    own = np.array([folds(data)[name] for name in data.patients]) == options.fold
    parent = find_model("starter")
    config = open_bundle(parent).config
    config = replace(config, model=replace(config.model, **MODEL), volume=replace(config.volume, **VOLUME))
    model = load_bundle(parent)
    torch.manual_seed(10 + options.fold)
    model.classifier = build_classifier(config.model, model.backbone)
    for number, phase in enumerate(PHASES):
        done = options.output / f"phase-{number}.pt"
        if not done.exists():
            torch.save(train(model.classifier, config.model, data, draw_shares(data, own), phase), done)
        model.classifier.load_state_dict(torch.load(done, weights_only=True))
    report(model.classifier.eval(), config.model, data.select(own))
    save_bundle(model, config, {"name": f"pyramid-fold-{options.fold}"}, options.output / "bundle", replace=True)


def read(folder: Path) -> SliceDataset:
    """All slices; where those of MSD end at 0 HU, every other one is filled with what LiTS has there."""
    parts = [read_slices(folder / "lits"), read_slices(folder / "msd_liver_slices.npz", hu_range=(0, 255))]
    parts[1].images[::2][parts[1].images[::2] <= 0] = DARKEST
    parts += [read_slices(folder / "more" / "negatives" / f"{name}.npz") for name in NEGATIVES]
    return SliceDataset.concatenate(parts)


def folds(data: SliceDataset) -> dict[str, int]:
    """The fold of each patient; -1 of those without liver, who teach all models."""
    lits = [name for name in data.patient_names() if name.startswith("volume-")]
    others = [name for name in data.patient_names() if name.isdigit() and name not in SAME]
    fold = dict.fromkeys(data.patient_names(), -1) | dict.fromkeys(VALIDATION, 0)
    first, *drawn = np.random.default_rng(0).permutation([name for name in lits if name not in VALIDATION]).tolist()
    fold |= {first: 0} | {name: 1 + n % (FOLDS - 1) for n, name in enumerate(drawn)}
    fold |= {name: n % FOLDS for n, name in enumerate(np.random.default_rng(1).permutation(others))}
    return fold | {name: fold[lits_name] for name, lits_name in SAME.items()}


def draw_shares(data: SliceDataset, left_out: np.ndarray) -> np.ndarray:
    """How often each slice is drawn, [n], in all 1: six in ten with liver; small ones and rare patients more often."""
    names, owner, counts = np.unique(data.patients, return_inverse=True, return_counts=True)
    share = 1 / np.sqrt(counts[owner])
    share[[name in SAME for name in data.patients]] /= 2
    share[np.isin(owner, np.flatnonzero([fold == -1 for fold in map(folds(data).get, names)]))] *= 2
    area = data.masks.sum(axis=(1, 2))
    share[data.labels & (area < SMALL)] *= 2.5
    share[left_out] = 0
    for group, part in ((data.labels, 0.6), (~data.labels, 0.4)):
        share[group] *= part / share[group].sum()
    return share


def train(
    classifier: nn.Module, model: ModelConfig, data: SliceDataset, shares: np.ndarray, phase: Phase
) -> dict[str, torch.Tensor]:
    """The moving average of the weights after one phase."""
    averaged = AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    optimiser = torch.optim.AdamW(classifier.parameters(), weight_decay=0.02)
    steps = phase.coarse + phase.fine
    for step in range(steps):
        random = np.random.default_rng((step, *phase[:2]))
        chosen = np.sort(random.choice(len(data), BATCH, p=shares))
        size = model.size // 2 if step < phase.coarse else model.size
        hu, masks = (torch.from_numpy(part[chosen].astype(np.float32)) for part in (data.images, data.masks))
        generator = torch.Generator().manual_seed(int(random.integers(2**31)))
        hu, masks = imitate_scanners(hu, masks, generator, size)
        labels = (masks.sum(dim=(1, 2)) > 3).float()  # what is left of the liver after it was moved
        for group in optimiser.param_groups:
            group["lr"] = phase.rate * learning_rate_scale(step, steps, WARMUP)
        maps = classifier.train()(windowed(hu.numpy(), model))
        loss = classification_loss(liver_logit(maps), labels, "cross_entropy")
        loss = loss + outline_loss(maps[labels > 0], masks[labels > 0], model.omega)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(classifier)
        if step % 25 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return averaged.module.state_dict()


@torch.inference_mode()
def report(classifier: nn.Module, model: ModelConfig, data: SliceDataset) -> None:
    """AUC of p(liver) on the LiTS patients left out, and the Dice of the CAM's own mask."""
    lits = data.select([name.startswith("volume-") for name in data.patients])
    parts = [classifier(windowed(lits.images[k : k + 8], model)) for k in range(0, len(lits), 8)]
    maps = torch.cat(parts)
    area = roc_auc(liver_logit(maps).numpy(), lits.labels, lits.patients, seed=0)
    found = [binary_mask(class_activation_map(part, model.size), model.omega).numpy() for part in parts]
    dice = mean_dice(np.concatenate(found)[lits.labels], lits.masks[lits.labels])
    print(
        f"AUC {area.value:.4f} ({area.low:.4f} to {area.high:.4f}), {area.patients} patients; CAM as mask: {dice:.4f}"
    )


if __name__ == "__main__":
    main()
