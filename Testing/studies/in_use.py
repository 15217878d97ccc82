"""What each step between the classifier's answer and the mask of a scan is worth: gate, box, prompt, what follows SAM.

    python Testing/studies/in_use.py DATA runs/desk/sam-mix-50-seed-0/bundle ... -o table.csv

Nothing is trained: each bundle segments the validation patients of protocol desk again and again, with one setting
changed. ``--test`` takes the test patients, the settings as they are and the paper's slice by slice, and scores the
middle slices that the tables score. The slices as stored do not say their spacing, so SAM sees every one.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset, read_slices
from SAMMixLib.evaluation.metrics import mean_dice, score_overlap
from SAMMixLib.experiments.protocol import read_protocol
from SAMMixLib.imaging.volume import Volume
from SAMMixLib.inference.scan import Scan
from SAMMixLib.inference.segmenter import Segmenter
from SAMMixLib.process import tune_process
from SAMMixLib.progress import Progress

COLUMNS = ("bundle", "setting", "dice_all", "dice_liver", "missed", "false", "dice_volume")
CACHE = 2**31  # bytes
AS_IT_IS, ALONE = "as it is", "each slice alone, as in the paper"


def settings(config: Config) -> dict[str, dict[str, dict]]:
    """What is changed, by name: entries of the model's and of the volume's part of the config."""
    threshold = config.model.prompt_threshold
    gates = {
        "no gate: p(liver) of each slice": (threshold, threshold),
        "gate 0.7, 0.28": (0.7, 0.28),
        "gate at the threshold and 0.4 of it": (threshold, 0.4 * threshold),
        "gate at 2.5 of the threshold and it": (min(0.99, 2.5 * threshold), threshold),
    }
    return {
        AS_IT_IS: {},
        ALONE: {"volume": {"gate_high": threshold, "gate_low": threshold, "largest_component": False}},
        **{name: {"volume": {"gate_high": high, "gate_low": low}} for name, (high, low) in gates.items()},
        "largest component off": {"volume": {"largest_component": False}},
        **{f"boxes smoothed over {reach}": {"volume": {"smooth_boxes": reach}} for reach in (1, 2)},
        **{f"box of the mask, {passes} times": {"volume": {"refine": passes}} for passes in (1, 2)},
        **{f"omega {omega}": {"model": {"omega": omega}} for omega in (0.2, 0.3, 0.4, 0.5)},
        **{f"padding {pixels:g}": {"model": {"padding": pixels}} for pixels in (0.0, 5.0, 10.0)},
        "a box for each component": {"model": {"regions": "each"}},
        "dense mask": {"model": {"dense_mask": True}},
    }


class ClassifiedOnce(Scan):
    """A scan whose classifier is asked once: all that varies here comes after it."""

    def _classify(self, slices: Sequence[int], progress: Progress):
        if np.isnan(self.p_liver).any():
            self.shared = super()._classify(range(len(self.slices)), progress)
        return self.shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    tune_process()

    patients = read(options.data, "test" if options.test else "validation")
    only = (AS_IT_IS, ALONE) if options.test else None
    with options.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for folder in options.bundles:
            for setting, scores in score(Segmenter.from_bundle(folder), patients, only).items():
                row = {"bundle": folder, "setting": setting} | scores
                table.writerow(row)
                file.flush()
                print(" | ".join(str(value) for value in row.values()), flush=True)


def read(data: Path, part: str) -> list[tuple[SliceDataset, np.ndarray]]:
    """Each patient's slices in order, and bool [n], which of them are scored: of test patients those of the tables."""
    desk = read_protocol("desk")
    whole = read_slices(data / desk.source.path, hu_range=desk.source.hu_range, patients=desk.split[part])
    scored = next(iter(desk.read(data)[2].values())) if part == "test" else whole
    patients = []
    for name in whole.patient_names():
        own = whole.select(whole.patients == name)
        own = own.select(np.argsort(own.indices))
        patients.append((own, np.isin(own.indices, scored.indices[scored.patients == name])))
    return patients


def score(
    segmenter: Segmenter, patients: list[tuple[SliceDataset, np.ndarray]], only: Sequence[str] | None
) -> dict[str, dict]:
    """The scores of each setting over all patients; of the volume's Dice the mean over patients."""
    own = replace(segmenter.config, volume=replace(segmenter.config.volume, gap_mm=0.0))
    found: dict[str, list[np.ndarray]] = {}
    for patient, counted in patients:
        segmenter.config = own
        scan = ClassifiedOnce(segmenter, Volume(sitk.GetImageFromArray(patient.images), Path("lits.nii.gz")), CACHE)
        for name, changes in settings(own).items():
            if only and name not in only:
                continue
            segmenter.config = replace(
                own,
                model=replace(own.model, **changes.get("model", {})),
                volume=replace(own.volume, **changes.get("volume", {})),
            )
            segmenter.model.config = segmenter.config.model
            found.setdefault(name, []).append(scan.segment().mask[counted])
    references = [patient.masks[counted] > 0 for patient, counted in patients]
    return {name: scores(masks, references) for name, masks in found.items()}


def scores(masks: list[np.ndarray], references: list[np.ndarray]) -> dict[str, float]:
    mask, reference = np.concatenate(masks), np.concatenate(references)
    liver, seen = reference.any(axis=(1, 2)), mask.any(axis=(1, 2))
    return {
        "dice_all": round(mean_dice(mask, reference), 4),
        "dice_liver": round(mean_dice(mask[liver], reference[liver]), 4),
        "missed": int((liver & ~seen).sum()),
        "false": int((seen & ~liver).sum()),
        "dice_volume": round(np.mean([score_overlap(*pair).dice for pair in zip(masks, references, strict=True)]), 4),
    }


if __name__ == "__main__":
    main()
