"""How much two masks have in common."""

from __future__ import annotations

import numpy as np


def dice(one: np.ndarray, other: np.ndarray, axes: tuple[int, ...] | None = None) -> np.ndarray:
    """Dice of two masks, 2 |A and B| / (|A| + |B|), over all axes or these; NaN where both are empty.

    Args:
        one, other: of one shape, not 0 is inside.

    Example:
        >>> masks = np.array([[1, 1, 0], [0, 0, 0]])
        >>> float(dice(masks, masks[:, ::-1])), dice(masks, masks[:, ::-1], axes=(1,)).tolist()
        (0.5, [0.5, nan])
    """
    one, other = np.asarray(one) != 0, np.asarray(other) != 0
    common = np.asarray(np.count_nonzero(one & other, axis=axes))
    total = np.count_nonzero(one, axis=axes) + np.asarray(np.count_nonzero(other, axis=axes))
    return np.divide(2 * common, total, out=np.full(common.shape, np.nan), where=total > 0)
