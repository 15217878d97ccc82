"""The two losses of the paper, both MONAI's.

The classification loss is MONAI's sigmoid :class:`~monai.losses.FocalLoss` on the log-odds of liver, with the alpha and
gamma of Lin et al. since the paper names none. The segmentation loss is MONAI's :class:`~monai.losses.DiceLoss` per
slice on SAM's mask; a share of cross entropy may be added (the paper adds none). Losses that the paper does not have
say so.
"""

from __future__ import annotations

import torch.nn.functional as F
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor

_focal = FocalLoss(alpha=0.25, gamma=2.0)
_dice = DiceLoss(sigmoid=True)
_soft_dice = DiceLoss()

OUTLINE_SLOPE = 10.0
"""How steeply the soft threshold rises: from 0.7 % at 0 to 99.3 % at the maximum, where omega is 0.5."""


def classification_loss(logit: Tensor, label: Tensor, kind: str = "focal") -> Tensor:
    """Eq. 3. Log-odds of liver ``[n]`` against image-level labels ``[n]``; MONAI weighs positives by alpha.

    That weight and the focus on hard slices make p(liver) too low and too unsure; the kind ``cross_entropy``, which is
    not in the paper, does not.
    """
    if kind == "cross_entropy":
        return F.binary_cross_entropy_with_logits(logit.float(), label.float())
    return _focal(logit[:, None].float(), label[:, None].float())


def segmentation_loss(mask_logits: Tensor, masks: Tensor, cross_entropy: float = 0.0) -> Tensor:
    """Eq. 9, plus `cross_entropy` times the binary cross entropy. Both tensors ``[n, h, w]``."""
    mask_logits, masks = mask_logits[:, None].float(), masks[:, None].float()
    loss = _dice(mask_logits, masks)
    if cross_entropy:
        loss = loss + cross_entropy * F.binary_cross_entropy_with_logits(mask_logits, masks)
    return loss


def activation_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Dice between the normalised liver map of ``[n, 2, h, w]`` and the masks ``[n, H, W]``; not in the paper.

    It makes the thresholded CAM, and so the box, cover the liver instead of its most telling part. It acts on the map
    that is thresholded, so the logits stay free.
    """
    g = maps[:, 1:].float().relu()
    g = g / g.detach().amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    return _soft_dice(g, F.adaptive_avg_pool2d(masks[:, None].float(), (g.shape[2], g.shape[3])))


def outline_loss(maps: Tensor, masks: Tensor, omega: float) -> Tensor:
    """Dice and cross entropy of what the threshold cuts out of the map, against masks ``[n, H, W]``; not in the paper.

    The cut at ``omega * max(g)`` is made soft. Unlike :func:`activation_loss`, which sees nothing where the map is
    below 0, it reaches every part of the liver that the map misses, so dark lobes are learned, too.
    """
    g = maps[:, 1].float()
    peak = g.detach().amax(dim=(1, 2), keepdim=True).clamp_min(1.0)
    logits = OUTLINE_SLOPE * (g / peak - omega)
    target = F.adaptive_avg_pool2d(masks[:, None].float(), (g.shape[1], g.shape[2]))[:, 0]
    return segmentation_loss(logits, target, cross_entropy=1.0)
