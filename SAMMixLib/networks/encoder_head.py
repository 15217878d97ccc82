"""The second kind of classifier: a small head on the SAM encoder's embedding; one encoder pass serves both tasks."""

from __future__ import annotations

from torch import Tensor, nn


class EncoderHead(nn.Module):
    """Embeddings ``[n, 256, e, e]`` to features ``[n, 128, e / 2, e / 2]``: the body of a :class:`CamClassifier`."""

    features_channels = 128

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride, dilation in ((256, 64, 2, 1), (64, 64, 1, 2), (64, 128, 1, 4)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings)
