"""What the table of results says about one segmented scan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from SAMMixLib.inference.quality import slices_to_review
from SAMMixLib.inference.results import SegmentationResult


def figures_of(result: SegmentationResult) -> dict[str, Any]:
    """Figures as plain JSON values; one that is not defined is None.

    ``quality`` is SAM's own estimate of the Dice-like overlap (predicted IoU, 0 to 1), the mean over the slices that it
    looked at, weighed by area; ``review`` the slices to look at first.
    """
    looked = result.predicted_iou > 0
    weights = np.where(looked, result.area_mm2, 0)
    quality = float(np.average(result.predicted_iou, weights=weights)) if weights.sum() > 0 else None
    first, last = result.slice_range or (None, None)
    return {
        "volume_ml": round(float(result.volume_ml), 3),
        "first_slice": first,
        "last_slice": last,
        "slices": len(result.p_liver),
        "mean_hu": round(float(result.mean_hu), 2) if math.isfinite(result.mean_hu) else None,
        "quality": None if quality is None else round(quality, 4),
        "review": slices_to_review(result.p_liver, result.predicted_iou, result.area_mm2, result.threshold),
        "spacing_kji_mm": [round(float(step), 5) for step in result.spacing],
        "structure": result.structure,
        "device": result.device,
        "dtype": result.dtype,
    }
