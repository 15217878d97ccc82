"""The two losses of the paper, both MONAI's.

The classification loss is MONAI's sigmoid :class:`~monai.losses.FocalLoss` on the log-odds of liver, with the alpha and
gamma of Lin et al. since the paper names none. The segmentation loss is MONAI's :class:`~monai.losses.DiceLoss` per
slice on SAM's mask; a share of cross entropy may be added (the paper adds none).
"""

from __future__ import annotations

import torch.nn.functional as F
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor

_focal = FocalLoss(alpha=0.25, gamma=2.0)
_dice = DiceLoss(sigmoid=True)
_soft_dice = DiceLoss()


def classification_loss(logit: Tensor, label: Tensor) -> Tensor:
    """Eq. 3. Log-odds of liver ``[n]`` against image-level labels ``[n]``; MONAI weighs positives by alpha."""
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
