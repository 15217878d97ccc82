"""The third kind of classifier: a small feature pyramid that sees the whole body and still draws fine maps.

ResNet38 keeps an output stride of 8 and never sees the slice as a whole. Here a residual network goes down to 1/32 of
the slice, and what it found there is added back, level by level, up to maps of S / 4. For the price of a quarter of the
slim ResNet38 the activation map is twice as fine, and each of its pixels knows its place in the body.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 192)
"""Channels at 1/4, 1/8, 1/16 and 1/32 of the slice, for width 1."""
BLOCKS = (1, 2, 2, 2)


class ConvNormAct(nn.Sequential):
    """A convolution without bias, its batch norm, and a ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNormAct(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Pyramid(nn.Module):
    """Grey slices ``[n, 1, S, S]`` in 0..1 to features ``[n, 64 * width, S / 4, S / 4]``: a CamClassifier's body.

    Args:
        width: multiplies every number of channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        widths = [round(channels * width) for channels in WIDTHS]
        self.features_channels = round(64 * width)
        self.stem = nn.Sequential(
            ConvNormAct(1, widths[0] // 2, stride=2), ConvNormAct(widths[0] // 2, widths[0], stride=2)
        )
        self.levels = nn.ModuleList()
        inputs = widths[0]
        for level, (outputs, blocks) in enumerate(zip(widths, BLOCKS, strict=True)):
            down = [ConvNormAct(inputs, outputs, stride=2)] if level else []
            self.levels.append(nn.Sequential(*down, *(Residual(outputs) for _ in range(blocks))))
            inputs = outputs
        # Every pixel of the coarsest level is told what the slice holds as a whole.
        self.whole = nn.Conv2d(widths[-1], widths[-1], 1)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, self.features_channels, 1) for channels in widths)
        self.smooth = nn.ModuleList(ConvNormAct(self.features_channels, self.features_channels) for _ in widths[:-1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x * 2 - 1).contiguous(memory_format=torch.channels_last))
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        x = self.lateral[-1](x + self.whole(x.mean(dim=(2, 3), keepdim=True)))
        for level in reversed(range(len(found) - 1)):
            x = F.interpolate(x, size=found[level].shape[2:], mode="bilinear", align_corners=False)
            x = self.smooth[level](x + self.lateral[level](found[level]))
        return x
