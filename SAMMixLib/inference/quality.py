"""Which slices to look at first, and how good a slice's mask probably is.

Any model's slices are sorted by three signs of doubt. A bundle may also hold a small logistic model that turns seven
signs into the Dice to expect. It is fitted on patients that the segmenting model never saw, as ``sammix crossvalidate``
does: a model is surer of its own training patients than of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import ndimage

from SAMMixLib.errors import SAMMixError

LOW_IOU = 0.9
LARGE_JUMP = 1 / 3
GOOD = 0.8
"""Expected Dice from which a slice is probably good."""


def slices_to_review(
    p_liver: np.ndarray, predicted_iou: np.ndarray, area_mm2: np.ndarray, gate_high: float
) -> list[int]:
    """The slices k where at least one of three signs of doubt is strong enough, the most doubtful first.

    1. Classifier and mask disagree: there is a mask where p(liver) is below `gate_high`, so that only the neighbours
       spoke for it; or none where p(liver) is above.
    2. SAM expects a poor mask: its predicted IoU is below 0.9 (where it looked at all).
    3. The area changes by more than a third of the larger one to a neighbour that has a mask, too.

    Each sign is 1 at its limit, and the largest counts. A measure to sort by, not a probability of error.

    Args:
        p_liver, predicted_iou, area_mm2: float [k], as in :class:`SAMMixLib.inference.results.SegmentationResult`;
            p(liver) is NaN where nobody looked.
    """
    with_mask = area_mm2 > 0
    disagreement = np.where(with_mask, (1 - p_liver) / (1 - gate_high), np.nan_to_num(p_liver) / gate_high)
    poor = np.where(predicted_iou > 0, (1 - predicted_iou) / (1 - LOW_IOU), 0)
    jump = np.zeros(len(area_mm2) + 1)  # between slices k - 1 and k
    both = np.flatnonzero(with_mask[1:] & with_mask[:-1])
    pairs = np.stack([area_mm2[both], area_mm2[both + 1]])
    jump[both + 1] = np.abs(pairs[1] - pairs[0]) / pairs.max(axis=0) / LARGE_JUMP
    doubt = np.max([disagreement, poor, jump[1:], jump[:-1]], axis=0)
    return [int(k) for k in np.argsort(-doubt, kind="stable") if doubt[k] > 1]


SIGNS = (
    "log-odds of liver",
    "SAM's predicted IoU",
    "CAM against mask",
    "outside the box",
    "log area",
    "jump",
    "ragged",
)
STEPS = 50  # of Newton's method; it has converged long before


@dataclass(frozen=True)
class QualityModel:
    """Weights of the signs, after each is centred and divided by its spread."""

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def expected_dice(self, signs: np.ndarray) -> np.ndarray:
        """Float ``[n]`` in 0..1 for signs ``[n, 7]`` of :func:`signs_of_doubt`; NaN where a slice has no mask."""
        z = (signs - np.array(self.centre)) / np.array(self.spread)
        return 1 / (1 + np.exp(-(z @ np.array(self.weights) + self.bias)))

    def to_dict(self) -> dict[str, Any]:
        names: dict[str, tuple] = {"centre": self.centre, "spread": self.spread, "weights": self.weights}
        return {"signs": list(SIGNS)} | {name: list(values) for name, values in names.items()} | {"bias": self.bias}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QualityModel:
        """The model of a card's plain dict.

        Raises:
            SAMMixError: it is damaged, or was fitted on other signs.
        """
        try:
            if tuple(data["signs"]) != SIGNS:
                raise ValueError(f"fitted on the signs {data['signs']}")
            centre, spread, weights = (tuple(map(float, data[name])) for name in ("centre", "spread", "weights"))
            if {len(centre), len(spread), len(weights)} != {len(SIGNS)}:
                raise ValueError("not one number for each sign")
            return cls(centre, spread, weights, float(data["bias"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SAMMixError(f"the bundle's estimate of quality is not usable ({error}); leave it out") from None


def signs_of_doubt(
    masks: np.ndarray,
    cams: np.ndarray,
    boxes: Sequence[Sequence[Sequence[float]]],
    *,
    p_liver: np.ndarray,
    predicted_iou: np.ndarray,
) -> np.ndarray:
    """What is known of each slice of one scan, float ``[k, 7]`` in the order of :data:`SIGNS`; NaN without a mask.

    Args:
        masks: bool [k, S, S], slices in order.
        cams: [k, S, S] in 0..1; what reaches half is the CAM's own mask.
        boxes: of each slice the prompts (x0, y0, x1, y1) in pixels of S, last pixel included.
        p_liver: [k].
        predicted_iou: [k]; 0 where SAM did not look: the nearest slices where it did speak for those.
    """
    found = np.full((len(masks), len(SIGNS)), np.nan)
    area = masks.sum(axis=(1, 2)).astype(float)
    seen = np.flatnonzero(predicted_iou > 0)
    iou = np.interp(np.arange(len(masks)), seen, predicted_iou[seen]) if len(seen) else np.zeros(len(masks))
    odds = np.clip(p_liver, 1e-4, 1 - 1e-4)
    for k in np.flatnonzero(area).tolist():
        mask, of_cam = masks[k], cams[k] >= 0.5
        inside = np.zeros_like(mask)
        for x0, y0, x1, y1 in boxes[k]:
            inside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
        near = [area[n] for n in (k - 1, k + 1) if 0 <= n < len(masks) and area[n]]
        found[k] = (
            np.log(odds[k] / (1 - odds[k])),
            iou[k],
            2 * (mask & of_cam).sum() / (area[k] + of_cam.sum()),
            (mask & ~inside).sum() / area[k],
            np.log(area[k]),
            max((abs(np.log(area[k] / other)) for other in near), default=0.0),
            1 - ndimage.binary_opening(mask, np.ones((3, 3))).sum() / area[k],
        )
    return found


def verdict(expected_dice: np.ndarray) -> str:
    """What to tell of the Dice to expect of each slice, float ``[k]``, NaN without a mask.

    >>> verdict(np.array([np.nan, 0.95, 0.7, 0.6, 0.95, 0.5]))
    'look at slices 2 to 3, 5'
    >>> verdict(np.array([np.nan, 0.95]))
    'probably good'
    """
    if np.isnan(expected_dice).all():
        return "nothing to judge"
    poor = np.flatnonzero(expected_dice < GOOD)
    if not len(poor):
        return "probably good"
    edges = [0, *(np.flatnonzero(np.diff(poor) > 1) + 1), len(poor)]
    runs = [(poor[a], poor[b - 1]) for a, b in pairwise(edges)]
    return "look at slices " + ", ".join(f"{a} to {b}" if b > a else f"{a}" for a, b in runs)


def fit_quality(signs: np.ndarray, dice: np.ndarray, decay: float = 1.0) -> QualityModel:
    """The logistic model whose answers are nearest to `dice` ``[n]`` in cross entropy, of slices that have signs.

    Args:
        decay: of the weights (ridge), which a few hundred slices need.
    """
    known = ~np.isnan(signs).any(axis=1)
    signs, dice = signs[known], dice[known]
    centre, spread = signs.mean(axis=0), signs.std(axis=0) + 1e-6
    x = np.concatenate([(signs - centre) / spread, np.ones((len(signs), 1))], axis=1)
    ridge = np.diag([decay] * signs.shape[1] + [0.0])
    w = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-x @ w))
        slope = x.T @ (p - dice) + ridge @ w
        w -= np.linalg.solve((x * np.maximum(p * (1 - p), 1e-6)[:, None]).T @ x + ridge + 1e-6 * np.eye(len(w)), slope)
    return QualityModel(tuple(centre.tolist()), tuple(spread.tolist()), tuple(w[:-1].tolist()), float(w[-1]))
