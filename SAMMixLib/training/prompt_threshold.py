"""The p(liver) from which a slice gets a prompt, chosen on validation slices.

A classifier ranks slices well long before its p(liver) means what it says: after a few hundred steps, 0.5 drops slices
with liver while no other one is near it.
"""

from __future__ import annotations

import numpy as np


def best_prompt_threshold(p_liver: np.ndarray, masks: np.ndarray, reference: np.ndarray) -> float:
    """The threshold with the highest mean Dice per slice, where a missed slice and a false mask both count 0.

    Args:
        p_liver: float [n].
        masks: bool [n, S, S], as predicted when every slice gets a prompt.
        reference: [n, S, S], not 0 is liver.

    Returns:
        The middle of the widest range of thresholds that are all the best.
    """
    masks, reference = masks.astype(bool), reference.astype(bool)
    total = masks.sum(axis=(1, 2)) + reference.sum(axis=(1, 2))
    dice = 2 * (masks & reference).sum(axis=(1, 2)) / np.maximum(total, 1)
    edges = np.unique([0.0, *p_liver.astype(float), 1.0])
    kept = p_liver[None] >= edges[1:, None]  # of any threshold between an edge and the next
    counted = (kept & masks.any(axis=(1, 2))) | reference.any(axis=(1, 2))
    scores = (dice * kept).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    best = np.isclose(scores, scores.max(), atol=1e-9)
    starts = np.flatnonzero(best & ~np.r_[False, best[:-1]])
    ends = np.flatnonzero(best & ~np.r_[best[1:], False])
    widest = int((edges[ends + 1] - edges[starts]).argmax())
    return float((edges[starts[widest]] + edges[ends[widest] + 1]) / 2)
