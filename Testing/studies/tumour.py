"""Another structure than the liver: tumours of the liver, from 50 masks and image-level labels of 15 LiTS patients.

    python Testing/studies/tumour.py DATA/lits -o RUNS

The patients are those of protocol desk; scores are of its validation patients, every slice with tumour and every fourth
without, each decided alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from collecting import collect

from SAMMixLib.data.slices import SliceDataset, read_slices
from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.experiments.protocol import read_protocol
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import PROMPTS, SlicePredictor
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.process import tune_process
from SAMMixLib.structure import TUMOUR
from SAMMixLib.training.finetuning import fine_tune

BFLOAT16 = Runtime(dtype=torch.bfloat16)

TUMOUR_VALUE = 2  # in the masks of LiTS
LARGE = 60  # pixels at 256 x 256
MASKS, LABELS, WITHOUT = 50, 75, 150  # slices drawn: with a mask, with tumour by label, without tumour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lits", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()

    def read(part: str) -> SliceDataset:
        return read_slices(options.lits, 256, patients=read_protocol("desk").split[part], mask_value=TUMOUR_VALUE)

    draw(read("train"), options.output / "set")
    tuned = fine_tune(options.output / "set", "starter", options.output / "run", runtime=BFLOAT16)
    print(f"{tuned.masks} masks, {tuned.labels} labels, {tuned.seconds:.0f} s; held out: Dice {tuned.after:.3f}")

    validation = read("validation")
    validation = validation.select(validation.labels | (np.arange(len(validation)) % 4 == 0))
    shown, truth = validation.labels, validation.masks
    large = shown & (truth.sum(axis=(1, 2)) > LARGE)
    model = load_bundle(tuned.bundle)
    for prompt in PROMPTS:
        found = SlicePredictor(model, BFLOAT16)(validation, prompt)
        print(
            f"{prompt}: Dice {mean_dice(found.masks[shown], truth[shown]):.3f} on {shown.sum()} slices, "
            f"{mean_dice(found.masks[large], truth[large]):.3f} on the {large.sum()} large ones; "
            f"{found.masks[~shown].any(axis=(1, 2)).mean():.1%} of the others got a mask"
        )


def draw(data: SliceDataset, folder: Path) -> None:
    """Draw the slices by the seed 0 and put them into a new training set."""
    random = np.random.default_rng(0)
    drawn = random.permutation(np.flatnonzero(data.labels & (data.masks.sum(axis=(1, 2)) > LARGE)))[:MASKS]
    labelled = random.permutation(np.setdiff1d(np.flatnonzero(data.labels), drawn))[:LABELS]
    without = random.permutation(np.flatnonzero(~data.labels))[:WITHOUT]
    collect(data, drawn, np.concatenate([labelled, without]), folder, TUMOUR)


if __name__ == "__main__":
    main()
