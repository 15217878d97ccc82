"""A trained model, ready to segment scans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from SAMMixLib.config import Config
from SAMMixLib.imaging.volume import Volume
from SAMMixLib.inference.device import choose_device, choose_dtype
from SAMMixLib.inference.results import SegmentationResult
from SAMMixLib.inference.scan import Scan
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.models.bundle import load_bundle, open_bundle
from SAMMixLib.models.registry import find_model
from SAMMixLib.networks.fusion import fuse_gelu
from SAMMixLib.progress import Progress, silent
from SAMMixLib.structure import LIVER, Structure


@dataclass
class Segmenter:
    """A model ready to segment: adapters folded in, on its device, in its precision."""

    model: SAMMix
    config: Config
    name: str
    device: torch.device
    dtype: torch.dtype
    batch_size: int = 8
    structure: Structure = LIVER

    @classmethod
    def from_bundle(
        cls,
        model: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
        base_weights: str | Path | None = None,
    ) -> Segmenter:
        """Load a bundle, given by its name or its folder, for inference.

        Raises:
            SAMMixError: the bundle, its base weights or the device are not usable.
        """
        folder = find_model(model)
        bundle = open_bundle(folder)
        chosen, _ = choose_device(device)
        precision = choose_dtype(chosen, dtype)
        ready = prepare(load_bundle(folder, base_weights, fold=True), chosen, precision)
        return cls(ready, bundle.config, bundle.name, chosen, precision, batch_size, bundle.structure)

    def segment(self, volume: Volume, progress: Progress = silent) -> SegmentationResult:
        """The structure in a CT in any orientation, see :meth:`SAMMixLib.inference.scan.Scan.segment`."""
        return Scan(self, volume).segment(progress)


def prepare(model: SAMMix, device: torch.device, dtype: torch.dtype) -> SAMMix:
    """Convert the networks to `dtype` and fuse what this device fuses, for inference only.

    The prompt encoder stays in float32.
    """
    model = model.eval().requires_grad_(False)
    model.backbone.cast(dtype)
    model.classifier.to(dtype)
    model = model.to(device)
    if device.type == "cpu":
        fuse_gelu(model.backbone.image_encoder)
    return model
