"""What five corrected slices of one hospital are worth on its other patients, and what is forgotten of the first ones.

    python Testing/studies/other_hospital.py DATA --seeds 5 -o RUNS

A seed draws five CURVAS slices with liver among the patients of which slices without liver are stored, too; all slices
of these patients give their image-level labels. Scored are the slices with liver of the other CURVAS patients, and the
validation patients of protocol desk (LiTS): every fourth slice, decided alone and with the gate along z.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from collecting import collect

from SAMMixLib.config import FINE_TUNING
from SAMMixLib.data.slices import SliceDataset, read_slices
from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.experiments.protocol import read_protocol
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictor
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.models.card import open_bundle
from SAMMixLib.models.registry import find_model
from SAMMixLib.process import tune_process
from SAMMixLib.training.finetuning import FineTuning, fine_tune

BFLOAT16 = Runtime(dtype=torch.bfloat16)

CORRECTED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", choices=FINE_TUNING, default="quick")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()

    curvas = read_slices(options.data / "curvas_slices.npz", hu_range=(0, 255))
    near = np.isin(curvas.patients, np.unique(curvas.patients[~curvas.labels]))
    here, others = curvas.select(near), curvas.select(~near & curvas.labels)
    desk = read_protocol("desk")
    lits = read_slices(options.data / "lits", hu_range=desk.source.hu_range, patients=desk.split["validation"])
    lits = lits.select(np.arange(len(lits)) % 4 == 0)
    print(f"{len(others)} CURVAS slices of other patients; {len(lits)} LiTS slices, {lits.labels.sum()} with liver")
    print("seed | CURVAS, others | LiTS with liver | LiTS all | LiTS with liver, gate | LiTS all, gate")
    print("before |", scores(find_model("starter"), others, lits), flush=True)
    for seed in range(options.seeds):
        run = options.output / str(seed)
        drawn = np.random.default_rng(seed).choice(np.flatnonzero(here.labels), CORRECTED, replace=False)
        collect(here, drawn, np.arange(len(here)), run / "set")
        tuned = fine_tune(run / "set", "starter", run / "run", FineTuning(options.preset, seed), BFLOAT16)
        print(seed, "|", scores(tuned.bundle, others, lits), f"| {tuned.seconds:.0f} s", flush=True)


def scores(bundle: Path, others: SliceDataset, lits: SliceDataset) -> str:
    model = load_bundle(bundle)
    found = SlicePredictor(model, BFLOAT16)(others)
    shown = [mean_dice(found.masks, others.masks)]
    for gating in (None, open_bundle(bundle).config.volume):
        found = SlicePredictor(model, BFLOAT16, gating)(lits)
        liver = lits.labels
        shown += [mean_dice(found.masks[liver], lits.masks[liver]), mean_dice(found.masks, lits.masks)]
    return " | ".join(f"{figure:.4f}" for figure in shown)


if __name__ == "__main__":
    main()
