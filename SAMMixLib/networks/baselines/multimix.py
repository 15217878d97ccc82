"""MultiMix: one U-Net that classifies a slice and segments it, the first shown to the second as a saliency map.

After Haque, Imran, Wang and Terzopoulos, "Generalized multi-task learning from substantially unlabeled multi-source
medical image data"; written from its description.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128, 256)


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with instance norm and LeakyReLU; then dropout."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Dropout(0.25))


class MultiMix(nn.Module):
    """Slices ``[n, 1, S, S]`` to mask logits ``[n, 1, S, S]`` and logits ``[n, 2]`` of no liver and liver.

    1,965,173 parameters as published. S must be a multiple of 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(double_convolution(a, b) for a, b in zip((1, *CHANNELS), CHANNELS, strict=False))
        self.classifier = nn.Linear(CHANNELS[-1], 2)
        # What is upsampled and what is skipped come together; in the first stage slice and saliency join them.
        inputs = [a + b for a, b in zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True)]
        inputs[0] += 2
        self.up = nn.ModuleList(double_convolution(a, b) for a, b in zip(inputs, CHANNELS[-2::-1], strict=True))
        self.head = nn.Conv2d(CHANNELS[0], 1, 1)
        # The published network counts this layer and never calls it; here too, so that the counts are the same.
        self.uncalled = nn.Conv2d(CHANNELS[0] + 1, 1, 1).requires_grad_(False)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features of S, S / 2, ... S / 16."""
        features = [self.down[0](x)]
        for block in self.down[1:]:
            features.append(block(F.max_pool2d(features[-1], 2)))
        return features

    def classify(self, x: Tensor) -> Tensor:
        """The logits ``[n, 2]`` alone."""
        return self.classifier(self.encode(x)[-1].mean(dim=(2, 3)))

    def saliency(self, x: Tensor) -> Tensor:
        """How much each pixel moves the log-odds of liver, ``[n, 1, S, S]``: the gradient's size over its largest."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.classify(x)
            (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), x)
        size = gradient.abs()
        return size / size.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([x, self.saliency(x)], dim=1)
        features = self.encode(x)
        classes = self.classifier(features[-1].mean(dim=(2, 3)))
        y = features.pop()
        joins = [F.interpolate(seen, scale_factor=1 / 8, mode="bilinear", antialias=True)]
        for block in self.up:
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
            y = block(torch.cat([y, features.pop(), *joins], dim=1))
            joins = []
        return self.head(y), classes
