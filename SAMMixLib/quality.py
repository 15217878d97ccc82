"""How good a slice's mask probably is, from what is known without a reference.

A small logistic model turns signs of doubt into the Dice to expect. Its weights are fitted on slices with a reference,
of patients that the segmenting model never saw; a model is otherwise surer of its own training patients than of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

SIGNS = (
    "log-odds of liver",
    "SAM's predicted IoU",
    "CAM against mask",
    "outside the box",
    "log area",
    "jump",
    "ragged",
)
FEWEST_PIXELS = 1.0
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
        names = {"centre": self.centre, "spread": self.spread, "weights": self.weights}
        return {"signs": list(SIGNS)} | {name: list(values) for name, values in names.items()} | {"bias": self.bias}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QualityModel:
        """The model of a card's plain dict; raises ValueError where it was fitted on other signs."""
        if tuple(data["signs"]) != SIGNS:
            raise ValueError(f"fitted on the signs {data['signs']}")
        return cls(*(tuple(data[name]) for name in ("centre", "spread", "weights")), float(data["bias"]))


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
    for k in np.flatnonzero(area):
        mask, of_cam = masks[k], cams[k] >= 0.5
        inside = np.zeros_like(mask)
        for x0, y0, x1, y1 in boxes[k]:
            inside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
        near = [area[n] for n in (k - 1, k + 1) if 0 <= n < len(masks) and area[n]]
        found[k] = (
            np.log(odds[k] / (1 - odds[k])),
            iou[k],
            2 * (mask & of_cam).sum() / max(FEWEST_PIXELS, area[k] + of_cam.sum()),
            (mask & ~inside).sum() / area[k],
            np.log(area[k]),
            max((abs(np.log(area[k] / other)) for other in near), default=0.0),
            1 - ndimage.binary_opening(mask, np.ones((3, 3))).sum() / area[k],
        )
    return found


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
