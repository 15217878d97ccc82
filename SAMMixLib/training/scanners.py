"""Augmentation in HU that imitates other scanners, phases and patients; on whole batches, so that it costs little.

What it changes is what made models fail elsewhere: the liver's own brightness (fatty liver to late arterial phase),
bowel full of contrast medium, the calibration and the kernel of the scanner, dose, the patient's size and place, and
data sets that were clipped at 0 HU. Nothing is mirrored: the liver is on the right.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

DARKEST = -40.0  # HU; below it the training data know nothing, and what moves into the slice is filled with it
LIVER_SHIFT = (-70.0, 40.0)  # HU
PLAIN = 40.0  # HU; what is brighter owes it to contrast medium, or is bone
ROTATION, ZOOM, STRETCH, MOVE = 0.2, 0.22, 0.08, 0.1  # radians; log of factors; share of the slice


def imitate_scanners(hu: Tensor, masks: Tensor, generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Slices ``[n, S, S]`` in HU and their masks (0 or 1), as ``[n, size, size]`` of other scans.

    A `size` below S gives coarser slices: the first, cheap part of a training may learn from those.
    """
    n = len(hu)

    def draw(low: float, high: float, share: float = 1.0, neutral: float = 0.0) -> Tensor:
        """``[n, 1, 1]``: uniform numbers for that share of the slices, `neutral` for the others."""
        values = torch.rand(n, 1, 1, generator=generator) * (high - low) + low
        return torch.where(torch.rand(n, 1, 1, generator=generator) < share, values, neutral)

    hu = hu.clamp_min(DARKEST)
    hu, masks = _moved(hu, masks, generator, size)
    hu = hu + draw(*LIVER_SHIFT, share=0.4) * _blurred(masks, 1.2)
    # Contrast medium in the bowel, and what else is brighter than the window: patches of soft tissue outside the liver.
    field = F.interpolate(torch.randn(n, 1, 12, 12, generator=generator), size=(size, size), mode="bilinear")[:, 0]
    patches = (field > draw(0.6, 1.6, share=0.2, neutral=math.inf)) & (hu > -10) & (masks < 0.5)
    hu = hu + patches * draw(60.0, 200.0)
    # Less contrast medium, down to nearly none: kidneys and vessels come close to the liver.
    hu = hu - (hu - PLAIN).clamp(0, 120) * draw(0.2, 0.9, share=0.25)
    hu = (hu - 60) * draw(0.85, 1.2, share=0.6, neutral=1.0) + 60 + draw(-25.0, 25.0, share=0.6)
    smooth = _blurred(hu, 1.0)
    hu = hu + (smooth - hu) * draw(-0.7, 1.0, share=0.5)  # from a sharp kernel to a soft one
    grain = torch.randn(hu.shape, generator=generator)
    grain = torch.where(draw(0.0, 1.0) < 0.5, grain, 2.5 * _blurred(grain, 0.8))
    hu = hu + grain * draw(0.0, 22.0, share=0.5)
    return hu.maximum(draw(DARKEST, 10.0, share=0.3, neutral=-math.inf)), masks


def _moved(hu: Tensor, masks: Tensor, generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Turned, zoomed, stretched and moved at random."""
    n = len(hu)

    def spread(amount: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * amount

    angle, zoom, stretch = spread(ROTATION), spread(ZOOM), spread(STRETCH)
    across, along = torch.exp(zoom + stretch), torch.exp(zoom - stretch)
    rows = [
        torch.stack([angle.cos() * across, -angle.sin() * along, spread(2 * MOVE)], dim=1),
        torch.stack([angle.sin() * across, angle.cos() * along, spread(2 * MOVE)], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), [n, 2, size, size], align_corners=False)
    both = torch.stack([hu - DARKEST, masks.float()], dim=1)
    if size < both.shape[-1]:
        both = F.interpolate(both, size=(size, size), mode="area")
    both = F.grid_sample(both, grid, align_corners=False)
    return both[:, 0] + DARKEST, (both[:, 1] >= 0.5).float()


def _blurred(maps: Tensor, sigma: float) -> Tensor:
    """Maps ``[n, S, S]`` under a Gaussian of `sigma` pixels, their borders continued.

    As a product of matrices: on a processor a quarter of the time of a convolution of one channel.
    """
    kernel = _blurring(maps.shape[-1], sigma).to(maps)
    return kernel @ maps @ kernel.T


@lru_cache
def _blurring(size: int, sigma: float) -> Tensor:
    """``[size, size]``: row i holds the weights of pixel i."""
    reach = math.ceil(2.5 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    places = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, places, (weights / weights.sum()).expand(size, -1))
