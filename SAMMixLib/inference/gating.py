"""Which slices of a scan get a prompt: the classifier's answers, made consistent along z."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def gate(p_liver: np.ndarray, high: float, low: float) -> np.ndarray:
    """Hysteresis along z: bool ``[k]``, the runs of slices with p >= `low` that hold one with p >= `high`."""
    runs, count = ndimage.label(p_liver >= min(low, high))
    strong = np.unique(runs[p_liver >= high])
    return np.isin(runs, strong[strong > 0]) if count else np.zeros(len(p_liver), bool)
