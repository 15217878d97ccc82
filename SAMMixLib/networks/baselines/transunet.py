"""TransUNet, "R50-ViT-B/16": a ResNet50 of three stages, a ViT on its last features, and a decoder with their skips.

After Chen et al., "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation"; written from its
description. Nothing is pretrained here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, DEPTH, HEADS = 768, 12, 12


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1 (Qiao et al., "Weight Standardization"); without bias."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        return F.conv2d(input, weight, None, self.stride, self.padding)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Weight-standardised convolution and group norm."""
    return nn.Sequential(StandardisedConv2d(inputs, outputs, size, stride), nn.GroupNorm(32, outputs))


class Unit(nn.Module):
    """A bottleneck of the ResNet: 1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.residual = nn.Sequential(
            convolution(inputs, middle, 1),
            nn.ReLU(),
            convolution(middle, middle, 3, stride),
            nn.ReLU(),
            convolution(middle, outputs, 1),
        )
        self.shortcut = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.residual(x))


def stage(units: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """`units` bottlenecks, of which the first changes width and resolution."""
    return nn.Sequential(Unit(inputs, outputs, stride), *(Unit(outputs, outputs, 1) for _ in range(units - 1)))


def activated(inputs: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm and ReLU, as in the decoder."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class TransUNet(nn.Module):
    """Slices ``[n, 1, size, size]`` to logits ``[n, 2, size, size]``; 105,322,146 parameters at 256.

    The count depends on `size`, a multiple of 16, through the position embedding: at 224 it is 46,080 smaller.
    """

    def __init__(self, size: int = 256) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 64, 7, 2), nn.ReLU())
        self.stages = nn.ModuleList([stage(3, 64, 256, 1), stage(4, 256, 512, 2), stage(9, 512, 1024, 2)])
        self.embed = nn.Conv2d(1024, WIDTH, 1)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, (size // 16) ** 2, WIDTH), std=0.02))
        layers = (
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.1, "gelu", batch_first=True, norm_first=True)
            for _ in range(DEPTH)
        )
        self.transformer = nn.Sequential(nn.Dropout(0.1), *layers, nn.LayerNorm(WIDTH))
        self.bridge = activated(WIDTH, 512)
        self.decoder = nn.ModuleList(
            nn.Sequential(activated(inputs, outputs), activated(outputs, outputs))
            for inputs, outputs in ((512 + 512, 256), (256 + 256, 128), (128 + 64, 64), (64, 16))
        )
        self.head = nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x.expand(-1, 3, -1, -1))]  # 64 channels of S / 2
        y = F.max_pool2d(features[0], 3, 2, padding=1)
        for block in self.stages:
            y = block(y)
            features.append(y)
        y = self.embed(features.pop())
        tokens = self.transformer(y.flatten(2).mT + self.positions)
        y = self.bridge(tokens.mT.unflatten(2, y.shape[2:]))
        for block in self.decoder:
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
            y = block(torch.cat([y, features.pop()], dim=1) if features else y)
        return self.head(y)
