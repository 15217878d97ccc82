"""Which slices to look at first."""

from __future__ import annotations

import numpy as np

LOW_IOU = 0.9
LARGE_JUMP = 1 / 3


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
