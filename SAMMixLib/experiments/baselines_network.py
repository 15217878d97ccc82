"""What the baseline networks of Table 1 are trained with, and how they segment a data set of slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from SAMMixLib.config import ModelConfig
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictions
from SAMMixLib.method.windowing import windowed
from SAMMixLib.models.base_weights import load_tensors
from SAMMixLib.networks.baselines.multimix import MultiMix
from SAMMixLib.networks.baselines.transunet import TransUNet
from SAMMixLib.networks.baselines.unet import build_unet
from SAMMixLib.networks.strict import load_strictly


@dataclass(frozen=True)
class Baseline:
    """A network with its loss.

    The network maps slices ``[n, 1, S, S]`` to mask logits ``[n, 1 or 2, S, S]``; one that `classifies` gives logits
    ``[n, 2]`` of no liver and liver with them, and has a method ``classify`` for those alone.
    """

    build: Callable[[], nn.Module]
    dice: float  # weight of the Dice loss
    cross_entropy: float  # weight of the pixels' cross entropy; of the slices' where the network classifies
    learning_rate: float
    batch_size: int
    classifies: bool = False


BASELINES = {
    "unet": Baseline(build_unet, dice=1.0, cross_entropy=1.0, learning_rate=1e-3, batch_size=8),
    "transunet": Baseline(TransUNet, dice=0.5, cross_entropy=0.5, learning_rate=1e-4, batch_size=4),
    "multimix": Baseline(MultiMix, dice=5.0, cross_entropy=1.0, learning_rate=1e-2, batch_size=8, classifies=True),
}


def log_odds(logits: Tensor) -> Tensor:
    """Logits ``[n, 1 or 2, ...]`` to the log-odds of liver, float32 ``[n, ...]``: a softmax of two is a sigmoid."""
    logits = logits.float()
    return logits[:, -1] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


class NetworkPredictor:
    """Segments slices with a baseline network; nothing but the image goes in, so the prompt source is ``cam``.

    Args:
        network: a baseline network on its device.
        config: window and size of a slice.
        runtime: its dtype is that of autocast.
    """

    def __init__(self, network: nn.Module, config: ModelConfig, runtime: Runtime = Runtime()) -> None:
        self.network, self.config, self.runtime = network, config, runtime

    # Not inference_mode: MultiMix needs the gradient of its classification.
    @torch.no_grad()
    def __call__(self, dataset: SliceDataset) -> SlicePredictions:
        """Masks and p(liver) of each slice, without boxes.

        A network that only segments sees liver in a slice as surely as in its surest pixel, so p(liver) >= 0.5 where
        its mask is not empty.
        """
        self.network.eval()
        device = next(self.network.parameters()).device
        size, batch = self.config.size, self.runtime.batch_size
        masks, p_liver = np.zeros((len(dataset), size, size), bool), np.zeros(len(dataset), np.float32)
        for start in range(0, len(dataset), batch):
            part = slice(start, min(start + batch, len(dataset)))
            slices = windowed(dataset.images[part], self.config).to(device)
            with self.runtime.autocast():
                output = self.network(slices)
            logits, classes = output if isinstance(output, tuple) else (output, None)
            logits = log_odds(logits)
            logit = logits.amax(dim=(1, 2)) if classes is None else log_odds(classes)
            masks[part] = (logits >= 0).cpu().numpy()
            p_liver[part] = logit.sigmoid().cpu().numpy()
            self.runtime.progress("segment slices", part.stop, len(dataset))
        return SlicePredictions(masks, p_liver, p_liver >= 0.5, threshold=0.5, keep_threshold=0.5, boxes=[])


def load_network(name: str, weights: Path, device: torch.device | str = "cpu") -> nn.Module:
    """The baseline network with the weights of a file.

    Raises:
        SAMMixError: the file is missing or damaged, or holds the weights of another network.
    """
    network = BASELINES[name].build()
    load_strictly(network, load_tensors(weights), str(weights))
    return network.to(device)
