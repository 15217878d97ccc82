"""What the scanner makes of the drawn patient."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SAMMixLib.data.phantom.canvas import Canvas

NOISE_SD = 13.0  # HU
TEXTURE_SD = 3.0  # HU, the slow waves inside an organ
POINT_SPREAD = (1.8, 0.7, 0.7)  # mm, sigma along z, y, x


def acquire(canvas: Canvas, random: np.random.Generator) -> np.ndarray:
    """Point spread, slow unevenness and correlated noise. int16 HU [k, j, i]."""
    sigma = np.divide(POINT_SPREAD, canvas.spacing[::-1])
    hu = ndimage.gaussian_filter(canvas.hu, sigma, truncate=3)
    shape = hu.shape
    waves = random.normal(
        0, 1, [max(2, round(n * step / 18)) for n, step in zip(shape, canvas.spacing[::-1], strict=True)]
    )
    waves = ndimage.zoom(
        waves.astype(np.float32), np.divide(shape, waves.shape), order=1, grid_mode=True, mode="nearest"
    )
    noise = ndimage.gaussian_filter(random.standard_normal(shape, np.float32), (0, 0.6, 0.6), truncate=3)
    hu += TEXTURE_SD * waves + NOISE_SD / noise.std() * noise
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
