"""The U-Net of Table 1."""

from __future__ import annotations

from monai.networks.nets import BasicUNet
from torch import nn

CHANNELS = (16, 32, 64, 128, 256)


def build_unet() -> nn.Module:
    """MONAI's U-Net with instance norm and LeakyReLU: slices ``[n, 1, S, S]`` to logits ``[n, 2, S, S]``.

    1,948,146 parameters. S must be a multiple of 16.
    """
    return BasicUNet(2, 1, 2, features=(*CHANNELS, CHANNELS[0]))
