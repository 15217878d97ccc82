"""What is looked at after an epoch: which slices, which scores, and from which p(liver) on a slice gets a prompt."""

from __future__ import annotations

import numpy as np

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.imaging.overlap import dice


def validation_subset(validation: SliceDataset, count: int | None) -> SliceDataset:
    """The slices that can be scored; at most `count`, evenly spread over each patient and the scan."""
    validation = validation.select(validation.has_mask | ~validation.labels)
    if count is None or count >= len(validation):
        return validation
    order = np.lexsort((validation.indices, validation.patients))
    return validation.select(order[((np.arange(count) + 0.5) * len(order) / count).astype(int)])


def validation_scores(masks: np.ndarray, validation: SliceDataset) -> dict[str, float]:
    """What is said of predicted masks ``[n, S, S]`` after an epoch; `score` decides which epoch is the best."""
    positive, with_mask = validation.labels, masks.any(axis=(1, 2))
    return {
        "validation_dice": mean_dice(masks[positive], validation.masks[positive]),
        "false_mask_rate": float(with_mask[~positive].mean()) if (~positive).any() else 0.0,
        "score": mean_dice(masks, validation.masks),
    }


def best_prompt_threshold(p_liver: np.ndarray, masks: np.ndarray, reference: np.ndarray) -> float:
    """The threshold with the highest mean Dice per slice, where a missed slice and a false mask both count 0.

    A classifier ranks slices well long before its p(liver) means what it says: after a few hundred steps, 0.5 drops
    slices with liver while no other one is near it.

    Args:
        p_liver: float [n].
        masks: bool [n, S, S], as predicted when every slice gets a prompt.
        reference: [n, S, S], not 0 is liver.

    Returns:
        The middle of the widest range of thresholds that are all the best.

    Example:
        >>> mask = np.ones((2, 4, 4), bool)
        >>> best_prompt_threshold(np.array([0.2, 0.4]), mask, mask * np.array([0, 1])[:, None, None])
        0.30000000000000004
    """
    masks, reference = masks.astype(bool), reference.astype(bool)
    per_slice = np.nan_to_num(dice(masks, reference, axes=(1, 2)))
    edges = np.unique([0.0, *p_liver.astype(float), 1.0])
    kept = p_liver[None] >= edges[1:, None]  # of any threshold between an edge and the next
    counted = (kept & masks.any(axis=(1, 2))) | reference.any(axis=(1, 2))
    scores = (per_slice * kept).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    best = np.isclose(scores, scores.max(), atol=1e-9)
    starts = np.flatnonzero(best & ~np.r_[False, best[:-1]])
    ends = np.flatnonzero(best & ~np.r_[best[1:], False])
    widest = int((edges[ends + 1] - edges[starts]).argmax())
    return float((edges[starts[widest]] + edges[ends[widest] + 1]) / 2)
