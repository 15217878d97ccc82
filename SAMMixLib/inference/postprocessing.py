"""What the product adds to the paper on a whole scan, each step with its switch in
:class:`~SAMMixLib.config.VolumeConfig`: a gate along z, smooth boxes, one component. What is spared between thin slices
stands in :mod:`.thin_slices`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from SAMMixLib.config import VolumeConfig

SUREST = 6.0
"""Log-odds beyond which one slice says no more: else a single wrong one outvotes many neighbours."""


def gate(p_liver: np.ndarray, settings: VolumeConfig) -> np.ndarray:
    """Which slices of a scan, in order, get a prompt: bool ``[k]``, by the rule that `settings` name."""
    rule = {"hysteresis": hysteresis_threshold, "interval": likeliest_interval}[settings.gate]
    return rule(p_liver, settings.gate_high, settings.gate_low)


def hysteresis_threshold(p_liver: np.ndarray, high: float, low: float) -> np.ndarray:
    """Which slices of a scan get a prompt: bool ``[k]``, the runs with p >= `low` that hold one with p >= `high`.

    >>> hysteresis_threshold(np.array([0.1, 0.4, 0.8, 0.4, 0.1, 0.4]), high=0.7, low=0.3).tolist()
    [False, True, True, True, False, False]
    """
    runs, count = ndimage.label(p_liver >= min(low, high))
    strong = np.unique(runs[p_liver >= high])
    return np.isin(runs, strong[strong > 0]) if count else np.zeros(len(p_liver), bool)


def likeliest_interval(p_liver: np.ndarray, high: float, low: float) -> np.ndarray:
    """Which slices of a scan get a prompt: bool ``[k]``, the one run that is the likeliest, as a liver is in one piece.

    A slice speaks for the run by how far its log-odds lie above those of `low`, and against it where they lie below. So
    a few unsure slices inside a liver stay in, and a lone false alarm far from it stays out. There is no run where no
    slice reaches `high`.

    >>> likeliest_interval(np.array([0.8, 0.1, 0.1, 0.8, 0.4, 0.9, 0.1]), high=0.7, low=0.5).tolist()
    [False, False, False, True, True, True, False]
    """
    chosen = np.zeros(len(p_liver), bool)
    if not (p_liver >= high).any():
        return chosen
    gain = np.clip(_log_odds(p_liver), -SUREST, SUREST) - _log_odds(low)
    before = np.concatenate([[0.0], np.cumsum(gain)])  # the sum of all slices before each border
    stop = int(np.argmax(before[1:] - np.minimum.accumulate(before[:-1]))) + 1
    start = int(np.argmin(before[:stop]))
    chosen[start:stop] = before[stop] > before[start]
    return chosen


def _log_odds(p: np.ndarray | float) -> np.ndarray:
    p = np.clip(np.asarray(p, float), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def smooth_boxes(boxes: list[Tensor], reach: int) -> list[Tensor]:
    """Replace each side of a slice's box by its median over the slices within `reach`, where each has one box."""
    smooth = []
    for k, box in enumerate(boxes):
        near = [other for other in boxes[max(0, k - reach) : k + reach + 1] if len(other) == 1]
        smooth.append(torch.cat(near).median(dim=0, keepdim=True).values if len(box) == 1 else box)
    return smooth


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected component of a 3D mask."""
    bounds = ndimage.find_objects(mask.view(np.uint8))
    if not bounds:
        return mask
    labels, count = ndimage.label(mask[bounds[0]])
    if count > 1:
        kept = np.zeros_like(mask)
        kept[bounds[0]] = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
        return kept
    return mask
