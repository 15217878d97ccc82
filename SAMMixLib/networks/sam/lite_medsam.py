"""LiteMedSAM (Ma et al.): TinyViT with SAM's prompt encoder and mask decoder, native 256 x 256."""

from __future__ import annotations

from torch import Tensor

from SAMMixLib.networks.sam.backbone import Backbone
from SAMMixLib.networks.sam.decoding import build_mask_decoder, build_prompt_encoder
from SAMMixLib.networks.sam.tiny_vit import TinyViT, fuse_batch_norm
from SAMMixLib.networks.strict import load_strictly

INPUT_SIZE = 256
EMBEDDING_SIZE = 64


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
