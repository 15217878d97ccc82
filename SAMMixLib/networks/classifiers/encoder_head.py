"""The second kind of classifier: a small head on the SAM encoder's own features; one pass serves both tasks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

GRID = 32
"""Side of the maps: finer features are averaged down to it, as fine as ResNet38's at 256."""


class EncoderHead(nn.Module):
    """Features ``[n, inputs, h, w]`` of the encoder's frozen part to ``[n, 128, 32, 32]``: a CamClassifier's body."""

    features_channels = 128

    def __init__(self, inputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, kernel, dilation in ((inputs, 1, 1), (128, 3, 2), (128, 3, 4)):
            layers += [
                nn.Conv2d(width, 128, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
                nn.BatchNorm2d(128),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] > GRID:
            features = F.avg_pool2d(features, features.shape[-1] // GRID)
        return self.layers(features)
