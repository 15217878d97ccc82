"""Eq. 5 to 8: from a CAM to SAM's prompt. The CAM is thresholded to a mask, the bounds of the mask are the box.

Boxes are edge coordinates ``(x0, y0, x1, y1)`` in pixels of the slice, as SAM takes them: a mask that covers the
columns i0 to i1 has ``x0 = i0`` and ``x1 = i1 + 1``.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

REGIONS = ("one", "largest", "each")


def binary_mask(cam: Tensor, omega: float) -> Tensor:
    """Eq. 5 and 6: bool ``[n, h, w]``, true where ``g >= tau``, ``tau = omega * max(g)``; false for a CAM of zeros."""
    peak = cam.amax(dim=(1, 2), keepdim=True)
    return (cam >= omega * peak) & (peak > 0)


def bounding_boxes(masks: Tensor, regions: str = "one", padding: float = 0.0) -> list[Tensor]:
    """Eq. 7 and 8: the boxes of each mask of ``[n, h, w]``, as n tensors ``[boxes, 4]`` (no row for an empty mask).

    `regions`: ``one`` box around everything (the paper), the ``largest`` connected component only, or ``each``
    component its own box. `padding` moves every side outwards by so many pixels, at most to the border: SAM forgives a
    box that is too large, not one that is too small.
    """
    height, width = masks.shape[1:]
    limits = masks.new_tensor([width, height, width, height], dtype=torch.float32)
    outwards = limits.new_tensor([-padding, -padding, padding, padding])
    boxes = []
    for mask in masks.cpu().numpy():
        found = limits.new_tensor(_component_bounds(mask, regions)).reshape(-1, 4)
        boxes.append(torch.minimum((found + outwards).clamp_min(0), limits))
    return boxes


def _component_bounds(mask: np.ndarray, regions: str) -> list[tuple[int, int, int, int]]:
    if regions == "one":
        labels = mask.astype(np.uint8)
    else:
        labels, count = ndimage.label(mask)
        if regions == "largest" and count > 1:
            labels = (labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])).astype(np.uint8)
    return [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]


def jitter(boxes: Tensor, amount: float, size: int, generator: torch.Generator) -> Tensor:
    """Boxes ``[n, 4]`` with each side moved by up to `amount` of the box's extent. For training only."""
    extent = torch.cat([boxes[:, 2:] - boxes[:, :2]] * 2, dim=1)
    shift = (torch.rand(boxes.shape, generator=generator) * 2 - 1).to(boxes) * amount * extent
    return (boxes + shift).clamp(0, size)
