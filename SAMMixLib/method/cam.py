"""The class activation map, and the image-level decision that comes with it.

The classifier ends in a 1 x 1 convolution to two maps (no liver, liver) followed by global average pooling. Averaging
and the linear layer commute, so the liver map is the weighted sum of features that the paper calls g: the CAM costs
nothing, and equals gradient Grad-CAM up to a constant (``Testing/method/test_equations.py`` checks it).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PEAK = 1 / 1024
"""Share of the map that ``peak`` pooling averages: 4 pixels of 64 x 64, which a tip of the liver fills."""


def liver_logit(maps: Tensor, pooling: str = "average") -> Tensor:
    """Class maps ``[n, 2, h, w]`` to the log-odds of liver ``[n]``: softmax fixes the difference only.

    Pooling by the ``average`` is the paper's. A tip of the liver is a thousandth of the slice and vanishes in it; the
    ``peak``, which is not in the paper, is the mean of the highest values alone (:data:`PEAK`).
    """
    if pooling == "peak":
        difference = (maps[:, 1] - maps[:, 0]).float().flatten(1)
        return difference.topk(max(1, round(difference.shape[1] * PEAK))).values.mean(dim=1)
    pooled = maps.float().mean(dim=(2, 3))
    return pooled[:, 1] - pooled[:, 0]


def class_activation_map(maps: Tensor, size: int, difference: bool = False) -> Tensor:
    """Eq. 4 on class maps ``[n, 2, h, w]``: the CAM ``[n, size, size]``, ReLU'd and divided by its maximum, so in 0..1.

    `difference` takes liver minus background instead of the liver map alone. The map is enlarged bilinearly before
    anything is thresholded, which spares the box the steps of the coarse grid. A map without a positive value is 0.
    """
    maps = maps.detach().float()
    g = maps[:, 1:] - maps[:, :1] if difference else maps[:, 1:]
    g = F.interpolate(g, size=(size, size), mode="bilinear", align_corners=False)[:, 0].relu()
    peak = g.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, g / peak.clamp_min(1e-12), 0.0)
