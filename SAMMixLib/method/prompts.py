"""From a CAM to SAM's prompt: the CAM is thresholded to a mask, the bounds of the mask are the box.

Boxes are edge coordinates ``(x0, y0, x1, y1)`` in pixels of the slice, as SAM takes them: a mask that covers the
columns i0 to i1 has ``x0 = i0`` and ``x1 = i1 + 1``.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

DENSE_LOGIT = 8.0
"""A binary CAM mask as SAM's mask prompt: SAM was trained with logits of this order."""


def binary_mask(cam: Tensor, omega: float) -> Tensor:
    """Eq. 5, the mask, and eq. 6, its threshold: bool ``[n, h, w]``, true where ``g >= tau``, ``tau = omega max(g)``.

    A CAM of zeros gives an empty mask.

    >>> binary_mask(torch.tensor([[[0.4, 0.5, 1.0]]]), omega=0.5).tolist()
    [[[False, True, True]]]
    """
    peak = cam.amax(dim=(1, 2), keepdim=True)
    return (cam >= omega * peak) & (peak > 0)


def bounding_boxes(masks: Tensor, regions: str = "one", padding: float = 0.0) -> list[Tensor]:
    """Eq. 7, the regions of a mask, and eq. 8, their bounds: n tensors ``[boxes, 4]`` of masks ``[n, h, w]``.

    An empty mask has no row.

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


def dense_prompt(masks: Tensor, side: int) -> Tensor:
    """Masks ``[n, h, w]`` as SAM's dense mask prompt: logits ``[n, 1, side, side]``, drawn in Fig. 1."""
    logits = (masks[:, None].float() * 2 - 1) * DENSE_LOGIT
    return F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)


def jitter(boxes: Tensor, amount: float, size: int, generator: torch.Generator) -> Tensor:
    """Boxes ``[n, 4]`` with each side moved by up to `amount` of the box's extent. For training only."""
    extent = torch.cat([boxes[:, 2:] - boxes[:, :2]] * 2, dim=1)
    shift = (torch.rand(boxes.shape, generator=generator) * 2 - 1).to(boxes) * amount * extent
    return (boxes + shift).clamp(0, size)
