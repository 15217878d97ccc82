"""ResNet38, "Model A1" of Wu et al., "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition".

The classifier of SAM-Mix: wide, shallow, and with an output stride of only 8, so that its activation maps stay fine.
Pre-activation blocks throughout: batch norm, ReLU, convolution without bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from SAMMixLib.networks.classifiers.encoder_head import EncoderHead
    from SAMMixLib.networks.classifiers.pyramid import Pyramid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut.

    Where the shape changes, the shortcut is a 1 x 1 convolution of the activated input; elsewhere the input itself.
    """

    def __init__(
        self, inputs: int, middle: int, outputs: int, stride: int = 1, dilation: int = 1, first_dilation: int = 1
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, middle, 3, stride, padding=first_dilation, dilation=first_dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        changes_shape = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        hidden = F.relu(self.norm2(self.conv1(active)))
        return self.conv2(hidden) + shortcut


class BottleneckBlock(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a 1 x 1 shortcut, with dropout of whole channels."""

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs // 4, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs // 4)
        self.conv2 = nn.Conv2d(outputs // 4, outputs // 2, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs // 2)
        self.conv3 = nn.Conv2d(outputs // 2, outputs, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        hidden = self.dropout(F.relu(self.norm2(self.conv1(active))))
        hidden = self.dropout(F.relu(self.norm3(self.conv2(hidden))))
        return self.conv3(hidden) + self.shortcut(active)


def stage(blocks: int, inputs: int, middle: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """`blocks` basic blocks; the first changes width and resolution and does not dilate its first convolution."""
    first = BasicBlock(inputs, middle, outputs, stride, dilation)
    rest = [BasicBlock(outputs, middle, outputs, 1, dilation, first_dilation=dilation) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class ResNet38(nn.Module):
    """Grey slices ``[n, 1, S, S]`` in 0..1 to features ``[n, 4096 * width, S / 8, S / 8]``.

    The slice stands for all three colours and is normalised as ImageNet is, so that ImageNet weights fit.

    Args:
        width: multiplies every number of channels; 1 is the paper's network (105,070,912 parameters), 1/4 has 6.6 and
            1/8 has 1.6 million.
        dropout: of the stages b6 and b7.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: float = 1.0, dropout: tuple[float, float] = (0.3, 0.5)) -> None:
        super().__init__()
        c64, c128, c256, c512, c1024, c2048, c4096 = (round(64 * 2**i * width) for i in range(7))
        self.features_channels = c4096
        self.stem = nn.Conv2d(3, c64, 3, padding=1, bias=False)
        self.b2 = stage(3, c64, c128, c128, stride=2)
        self.b3 = stage(3, c128, c256, c256, stride=2)
        self.b4 = stage(6, c256, c512, c512, stride=2)
        self.b5 = stage(3, c512, c512, c1024, dilation=2)
        self.b6 = BottleneckBlock(c1024, c2048, dilation=4, dropout=dropout[0])
        self.b7 = BottleneckBlock(c2048, c4096, dilation=4, dropout=dropout[1])
        self.norm = nn.BatchNorm2d(c4096)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - self.mean) / self.std)
        for part in (self.b2, self.b3, self.b4, self.b5, self.b6, self.b7):
            x = part(x)
        return F.relu(self.norm(x))


class CamClassifier(nn.Module):
    """A body and a 1 x 1 convolution to one activation map per class: no liver, liver.

    The logits are the mean of each map, ``maps.mean((2, 3))``: global average pooling and a linear layer swap places
    with the convolution. The head has no bias, so the liver map *is* the CAM, ``g = sum_i w_i F_i``.
    """

    def __init__(self, body: ResNet38 | Pyramid | EncoderHead) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Conv2d(body.features_channels, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What the body takes, to maps ``[n, 2, h, w]``, of S / 8 with ResNet38, of S / 4 with Pyramid."""
        return self.head(self.body(x))
