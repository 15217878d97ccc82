"""A trained model, ready to segment scans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from SAMMixLib.config import Config
from SAMMixLib.imaging.volume import Volume
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.quality import QualityModel
from SAMMixLib.inference.results import SegmentationResult
from SAMMixLib.inference.scan import Scan
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.models.card import open_bundle
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
    runtime: Runtime
    structure: Structure = LIVER
    quality: QualityModel | None = None  # tells the Dice to expect of each slice

    @property
    def device(self) -> torch.device:
        return self.runtime.device

    @property
    def dtype(self) -> torch.dtype:
        return self.runtime.dtype

    @classmethod
    def from_bundle(
        cls,
        model: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        *,
        batch_size: int = 8,
        base_weights: str | Path | None = None,
    ) -> Segmenter:
        """Load a bundle, given by its name or its folder, for inference.

        Args:
            device: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps.
            dtype: auto, float32, bfloat16 or float16.
            base_weights: the file of a ViT backbone's public weights.

        Raises:
            SAMMixError: the bundle, its base weights or the device are not usable.
        """
        folder = find_model(model)
        bundle, runtime = open_bundle(folder), Runtime.choose(device, dtype, batch_size)
        ready = prepare(load_bundle(folder, base_weights, fold=True), runtime)
        fitted = bundle.card.get("quality")
        quality = None if fitted is None else QualityModel.from_dict(fitted)
        return cls(ready, bundle.config, bundle.name, runtime, bundle.structure, quality)

    def segment(self, volume: Volume, progress: Progress = silent) -> SegmentationResult:
        """The structure in a CT in any orientation, see :meth:`SAMMixLib.inference.scan.Scan.segment`."""
        return Scan(self, volume).segment(progress)


def prepare(model: SAMMix, runtime: Runtime) -> SAMMix:
    """Convert the networks to the runtime's precision and fuse what its device fuses, for inference only.

    The prompt encoder stays in float32.
    """
    model = model.eval().requires_grad_(False)
    model.backbone.cast(runtime.dtype)
    model.classifier.to(runtime.dtype)
    model = model.to(runtime.device)
    if runtime.device.type == "cpu":
        fuse_gelu(model.backbone.image_encoder)
    return model
