"""What a few corrected slices of a scan are worth on its other slices: random ones against those that are suggested.

    python Testing/studies/few_slices.py ct.nii.gz liver.nii.gz --count 5 --choose suggested --seeds 5 -o RUNS

The annotator is an oracle: a corrected slice gets its reference mask, every slice of the scan its image-level label.
Each seed is a training of its own: it draws the random slices, those that are held out, and the training's batches. A
row of the table it prints goes to ``RUNS/results.csv``, too; a row that is there already is not run again. The picture
``RUNS/curve.png`` shows the whole scan, where a corrected slice counts as 1: the slices that are left differ.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
from SAMMixLib.evaluation.metrics import mean_dice, score_overlap
from SAMMixLib.imaging.masks import axial_mask
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.inference.active_learning import suggest
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.scan import Scan
from SAMMixLib.inference.segmenter import Segmenter
from SAMMixLib.models.registry import find_model
from SAMMixLib.process import tune_process
from SAMMixLib.training.finetuning import FineTuning, fine_tune

BFLOAT16 = Runtime(dtype=torch.bfloat16)

COLUMNS = (
    "choice", "count", "seed", "slices", "before", "after", "volume_before", "volume_after", "seconds",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("mask", type=Path)
    parser.add_argument("--count", type=int, nargs="+", default=[5])
    parser.add_argument("--choose", nargs="+", choices=("random", "suggested"), default=["random", "suggested"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()

    volume = read_volume(options.scan)
    reference = axial_mask(options.mask, volume) > 0
    starter = find_model("starter")
    scan = Scan(Segmenter.from_bundle(starter), volume)
    before = segmented(scan)
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.csv"
    done = {(r["choice"], r["count"], r["seed"]) for r in csv.DictReader(results.open())} if results.exists() else set()
    with results.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not done:
            table.writeheader()
        for seed in range(options.seeds):
            for count in options.count:
                for choice in options.choose:
                    if (choice, str(count), str(seed)) in done:
                        continue
                    row = one_training(choice, count, seed, scan, before, reference, options.output)
                    table.writerow(row)
                    file.flush()
                    print(row, flush=True)
    with_liver = int(reference.any(axis=(1, 2)).sum())
    draw(list(csv.DictReader(results.open())), with_liver, mean_dice(before, reference), options.output / "curve.png")


def one_training(choice, count, seed, scan, before, reference, folder) -> dict:
    chosen = chosen_slices(choice, count, seed, scan, reference)
    run = folder / f"{choice}-{count}-{seed}"
    training_set = TrainingSet.create(run / "set")
    stack, everything = scan.stack, np.arange(len(reference))
    spacing = tuple(float(mm) for mm in stack.spacing[1:])
    present = reference.any(axis=(1, 2))
    training_set.add(LabelledSlices("scan", everything.tolist(), stack.array, spacing, present))
    images = stack.array[chosen]
    training_set.add(LabelledSlices("scan", chosen, images, spacing, present[chosen], reference[chosen]))
    tuned = fine_tune(run / "set", "starter", run / "run", FineTuning(seed=seed), BFLOAT16)
    after = segmented(Scan(Segmenter.from_bundle(tuned.bundle), scan.volume))
    others = np.setdiff1d(everything, chosen)
    row = {"choice": choice, "count": count, "seed": seed, "slices": ",".join(map(str, chosen))}
    for name, mask in (("before", before), ("after", after)):
        row[name] = round(mean_dice(mask[others], reference[others]), 4)
        row[f"volume_{name}"] = round(score_overlap(mask[others], reference[others]).dice, 4)
    return row | {"seconds": round(tuned.seconds)}


def chosen_slices(choice: str, count: int, seed: int, scan: Scan, reference: np.ndarray) -> list[int]:
    """Slices with liver, for an annotator who is shown another one moves on."""
    with_liver = np.flatnonzero(reference.any(axis=(1, 2)))
    if choice == "random":
        return sorted(np.random.default_rng(seed).choice(with_liver, count, replace=False).tolist())
    return sorted([k for k, _ in suggest(scan, [], len(reference)) if k in with_liver][:count])


def draw(rows: list[dict], with_liver: int, start: float, path: Path) -> None:
    """Mean Dice per slice of the whole scan against the number of slices that somebody corrected."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for shift, (choice, colour) in zip(
        (-0.12, 0.12), {"random": "#5b6670", "suggested": "#c8553d"}.items(), strict=True
    ):
        points: dict[int, list[float]] = {0: [start]}
        for row in rows:
            if row["choice"] == choice:
                count = int(row["count"])
                points.setdefault(count, []).append((float(row["after"]) * (with_liver - count) + count) / with_liver)
        counts = sorted(points)
        means, spreads = ([function(points[count]) for count in counts] for function in (np.mean, np.std))
        axes.errorbar(np.add(counts, shift), means, spreads, color=colour, marker="o", ms=5, capsize=3, label=choice)
    axes.set_xticks(counts)
    axes.set_xlabel("slices corrected")
    axes.set_ylabel("Dice per slice, whole scan")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def segmented(scan: Scan) -> np.ndarray:
    """The model's mask on the axial stack, bool [k, j, i]."""
    return scan.segment().mask > 0


if __name__ == "__main__":
    main()
