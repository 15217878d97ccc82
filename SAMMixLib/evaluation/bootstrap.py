"""Means and areas under the ROC curve with confidence intervals, by drawing the patients again.

Slices of one patient resemble each other, so it is the patients that are drawn with replacement, and each brings all
its slices: the percentile bootstrap over clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

DRAWS = 2000
LEVELS = (2.5, 97.5)  # percent; together the 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval. NaN where it is not defined, the interval also where there is one patient."""

    value: float
    low: float
    high: float
    n: int  # slices or volumes that went in
    patients: int


def mean(values: np.ndarray, patients: np.ndarray, seed: int) -> Estimate:
    """The mean of the values [n] that are not NaN; ``patients`` [n] says whose each is."""
    values, patients = np.asarray(values, float), np.asarray(patients)
    defined = ~np.isnan(values)
    values, patients = values[defined], patients[defined]
    if not len(values):
        return Estimate(nan, nan, nan, 0, 0)
    names, owner = np.unique(patients, return_inverse=True)
    sums, counts = np.bincount(owner, values), np.bincount(owner)
    drawn = _draws(len(names), seed)
    return _estimate(values.mean(), drawn @ sums / (drawn @ counts), len(values), len(names))


def roc_auc(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray, seed: int) -> Estimate:
    """The chance that a positive has a higher score than a negative, ties counting half (Mann-Whitney).

    Draws in which a class is missing say nothing and are left out.
    """
    scores, labels, patients = np.asarray(scores), np.asarray(labels, bool), np.asarray(patients)
    if labels.all() or not labels.any():
        return Estimate(nan, nan, nan, len(labels), len(np.unique(patients)))
    names, owner = np.unique(patients, return_inverse=True)
    _, step = np.unique(scores, return_inverse=True)
    counts = np.zeros((2, len(names), step.max() + 1))  # class, patient, score in rising order
    np.add.at(counts, (labels.astype(int), owner, step), 1)
    drawn = np.concatenate([np.ones((1, len(names))), _draws(len(names), seed)])
    areas = np.array([_area(*np.tensordot(weights, counts, (0, 1))) for weights in drawn])
    return _estimate(areas[0], areas[1:], len(labels), len(names))


def _area(negatives: np.ndarray, positives: np.ndarray) -> float:
    """AUC from the number of negatives and positives at each score, in rising order."""
    pairs = negatives.sum() * positives.sum()
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / pairs) if pairs else nan


def _draws(patients: int, seed: int) -> np.ndarray:
    """[DRAWS, patients]: how often each patient is drawn."""
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), DRAWS).astype(float)


def _estimate(value: float, drawn: np.ndarray, n: int, patients: int) -> Estimate:
    low, high = np.nanpercentile(drawn, LEVELS) if patients > 1 else (nan, nan)
    return Estimate(float(value), float(low), float(high), n, patients)
