"""Where a model fails, from the rows of an evaluation: by size of the liver in the slice, by patient, by its own doubt.

A mean over slices hides the tips of the liver, one bad patient, and a p(liver) that does not mean what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from SAMMixLib.evaluation.bootstrap import roc_auc
from SAMMixLib.inference.quality import GOOD

SIZES = (200, 1000, 3000)  # pixels of the S x S slice
BINS = 10

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Group:
    """Slices with liver of one range of sizes, or of one patient."""

    name: str
    slices: int
    dice: float  # mean; a missed slice counts 0
    missed: int

    @classmethod
    def of(cls, name: str, rows: Rows) -> Group:
        dice = float(np.mean([row["dice"] for row in rows])) if rows else float("nan")
        return cls(name, len(rows), dice, sum(not row["masked"] for row in rows))

    def __str__(self) -> str:
        return f"| {self.name} | {self.slices} | {self.dice:.3f} | {self.missed} |"


@dataclass(frozen=True)
class Calibration:
    """p(liver) against what was there."""

    error: float  # expected calibration error: mean distance of the two, weighed by slices
    brier: float
    bins: list[tuple[float, float, int]]  # mean p, share with liver, slices; of equal steps of p, none empty


def by_size(rows: Rows, edges: Sequence[int] = SIZES) -> list[Group]:
    """Slices with liver by the reference's number of pixels: below the first edge, up to the next, ..., above."""
    scored = [row for row in rows if row.get("reference_voxels")]
    place = np.digitize([row["reference_voxels"] for row in scored], edges)
    names = [f"below {edges[0]}", *(f"{low} to {high - 1}" for low, high in pairwise(edges)), f"{edges[-1]} up"]
    members = [[row for row, n in zip(scored, place, strict=True) if n == k] for k in range(len(names))]
    return [Group.of(f"{name} pixels", own) for name, own in zip(names, members, strict=True)]


def by_patient(rows: Rows) -> list[Group]:
    """Slices with liver of each patient, the worst first."""
    scored = [row for row in rows if row.get("reference_voxels")]
    names = sorted({row["patient"] for row in scored})
    groups = [Group.of(name, [row for row in scored if row["patient"] == name]) for name in names]
    return sorted(groups, key=lambda group: group.dice)


def calibration(rows: Rows, bins: int = BINS) -> Calibration:
    """How far p(liver) is from the share of slices that hold liver.

    Example:
        >>> calibration([{"p_liver": 0.9, "liver": True}, {"p_liver": 0.9, "liver": False}]).error
        0.4
    """
    p = np.array([row["p_liver"] for row in rows], float)
    liver = np.array([row["liver"] for row in rows], float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    found = [
        (float(p[place == k].mean()), float(liver[place == k].mean()), int((place == k).sum()))
        for k in np.unique(place)
    ]
    error = sum(abs(said - was) * count for said, was, count in found) / max(1, len(p))
    return Calibration(error, float(((p - liver) ** 2).mean()), found)


def expectation(rows: Rows) -> str:
    """How well the Dice to expect of each slice (``expected_dice``) tells the true one, in a line."""
    judged = [row for row in rows if np.isfinite(row["expected_dice"])]
    expected, dice = (np.array([row[name] for row in judged]) for name in ("expected_dice", "dice"))
    if len(judged) < 2 or not (expected.std() and dice.std()):
        return "Dice to expect: too few slices with a mask to say how well it is told"
    told = f"Dice to expect against the true one: correlation {np.corrcoef(expected, dice)[0, 1]:.2f}"
    area = roc_auc(-expected, dice < GOOD, np.array([row["patient"] for row in judged]), seed=0)
    return f"{told}; AUC for the slices below {GOOD}: {area.value:.2f}; {len(judged)} slices"


def breakdown(rows: Rows) -> str:
    """All of it as Markdown tables.

    Args:
        rows: ``slices`` of an :class:`~SAMMixLib.evaluation.evaluate.Evaluation`, each with its ``expected_dice``.
    """
    head = "| {} | n | mean Dice | missed |\n|---|---|---|---|"
    lines = [head.format("slices with liver"), *(str(group) for group in by_size(rows) if group.slices)]
    lines += ["", head.format("patient, the worst first"), *map(str, by_patient(rows))]
    found = calibration(rows)
    lines += ["", f"Calibration of p(liver): expected error {found.error:.3f}, Brier score {found.brier:.3f}", ""]
    lines += ["| mean p(liver) | share with liver | n |", "|---|---|---|"]
    lines += [f"| {said:.2f} | {was:.2f} | {count} |" for said, was, count in found.bins]
    lines += ["", expectation(rows)]
    return "\n".join(lines)
