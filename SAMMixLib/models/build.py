"""A model as its config says: networks put together, adapters added or folded in."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from SAMMixLib.config import LITE_MEDSAM, ModelConfig
from SAMMixLib.errors import SAMMixError
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.models.base_weights import load_lite_medsam_weights
from SAMMixLib.networks.classifiers.encoder_head import EncoderHead
from SAMMixLib.networks.classifiers.pyramid import Pyramid
from SAMMixLib.networks.classifiers.resnet38 import CamClassifier, ResNet38
from SAMMixLib.networks.lora import add_lora, fold_lora
from SAMMixLib.networks.sam.backbone import Backbone, SplitEncoder
from SAMMixLib.networks.sam.lite_medsam import build_lite_medsam


def build_model(config: ModelConfig, base_weights: dict[str, Tensor] | None = None) -> SAMMix:
    """SAM-Mix as `config` says: frozen base weights, trainable adapters, decoder and classifier.

    Args:
        base_weights: the backbone's public weights. None takes LiteMedSAM's from its package and leaves a ViT backbone
            with random weights, which only tests want.
    """
    backbone = _build_backbone(config, base_weights)
    encoder = add_lora(backbone.image_encoder, config.lora_rank, config.lora_targets, config.lora_blocks)
    backbone.image_encoder = cast("SplitEncoder", encoder)  # peft hands on every name of the encoder
    return SAMMix(config, build_classifier(config, backbone), backbone)


def build_folded(
    config: ModelConfig, base_weights: dict[str, Tensor] | None, adapter: dict[str, Tensor], what: str
) -> SAMMix:
    """SAM-Mix with a trained `adapter` in the encoder's own weights, for inference, see :func:`fold_lora`."""
    backbone = _build_backbone(config, base_weights)
    fold_lora(backbone.image_encoder, adapter, what, config.lora_rank, config.lora_targets, config.lora_blocks)
    return SAMMix(config, build_classifier(config, backbone), backbone)


def _build_backbone(config: ModelConfig, base_weights: dict[str, Tensor] | None) -> Backbone:
    if config.backbone == LITE_MEDSAM:
        backbone = build_lite_medsam(load_lite_medsam_weights() if base_weights is None else base_weights)
    else:
        from SAMMixLib.networks.sam.sam_vit import build_sam

        backbone = build_sam(config.backbone, config.backbone_size, base_weights)
    backbone.multimask = config.multimask
    backbone.image_encoder.split(config.lora_blocks)
    backbone.prompt_encoder.requires_grad_(False)
    return backbone


def build_classifier(config: ModelConfig, backbone: Backbone) -> CamClassifier:
    """A new classifier for slices, or for the features of `backbone`, as `config` says."""
    if config.classifier == "resnet38":
        return CamClassifier(ResNet38(width=config.classifier_width))
    if config.classifier == "pyramid":
        return CamClassifier(Pyramid(width=config.classifier_width))
    if config.lora_blocks is None:
        raise SAMMixError("classifier 'encoder_head' reads the encoder's frozen part; set lora_blocks to leave one")
    return CamClassifier(EncoderHead(backbone.image_encoder.features_channels))


def trainable_counts(model: SAMMix) -> dict[str, int]:
    """Trainable parameters of each part, for the log: 294,912 of LoRA for q and v at rank 8 on ViT-B."""
    parts = {
        "classifier": model.classifier,
        "lora": model.backbone.image_encoder,
        "decoder": model.backbone.mask_decoder,
    }
    return {name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()}
