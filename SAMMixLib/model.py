"""Fig. 1 of the paper as one module: classifier, CAM, mask, box, SAM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMMixLib.cam import class_activation_map, liver_logit
from SAMMixLib.config import LITE_MEDSAM, ModelConfig
from SAMMixLib.errors import SAMMixError
from SAMMixLib.networks.backbone import Backbone
from SAMMixLib.networks.encoder_head import EncoderHead
from SAMMixLib.networks.lite_medsam import build_lite_medsam, load_lite_medsam_weights
from SAMMixLib.networks.lora import add_lora, fold_lora
from SAMMixLib.networks.pyramid import Pyramid
from SAMMixLib.networks.resnet38 import CamClassifier, ResNet38
from SAMMixLib.prompts import binary_mask, bounding_boxes

# A binary CAM mask as SAM's mask prompt: SAM was trained with logits of this order.
DENSE_LOGIT = 8.0


@dataclass
class SliceOutput:
    """What SAM-Mix says of n slices of S x S pixels."""

    logit: Tensor  # [n], log-odds of liver in the slice
    cams: Tensor  # [n, S, S] in 0..1
    boxes: list[Tensor]  # n tensors [boxes, 4], edge coordinates in pixels; no row where nothing was prompted
    mask_logits: Tensor  # [n, S, S]; the lowest value everywhere where nothing was prompted
    predicted_iou: Tensor  # [n], SAM's own estimate, 0 where nothing was prompted


class SAMMix(nn.Module):
    """SAM-Mix: image in, liver mask out, with no prompt from outside."""

    def __init__(self, config: ModelConfig, classifier: CamClassifier, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.classifier = classifier
        self.backbone = backbone

    def forward(self, slices: Tensor, boxes: list[Tensor] | None = None, features: Tensor | None = None) -> SliceOutput:
        """Segment windowed slices ``[n, 1, S, S]`` in 0..1, by their own CAM boxes or by the given ones.

        `features` is what the backbone's frozen part makes of the slices, where that is known already.
        """
        if features is None and self.shares_encoder:
            features = self.backbone.begin(slices)
        maps = self.classify(slices, features)
        logit = liver_logit(maps)
        cams = self.activate(maps)
        if boxes is None:
            boxes = self.prompt(cams, logit)

        prompted = torch.tensor([len(box) > 0 for box in boxes], device=slices.device)
        mask_logits = slices.new_full(cams.shape, torch.finfo(torch.float32).min, dtype=torch.float32)
        predicted_iou = torch.zeros_like(logit)
        if prompted.any():
            chosen = self.embed(slices[prompted], None if features is None else features[prompted])
            prompts = [box for box in boxes if len(box)]
            mask_logits[prompted], predicted_iou[prompted] = self.segment(chosen, prompts, cams[prompted])
        return SliceOutput(logit, cams, boxes, mask_logits, predicted_iou)

    @property
    def shares_encoder(self) -> bool:
        """Whether the classifier is a head on the SAM encoder's frozen part, so that one pass serves both tasks."""
        return self.config.classifier == "encoder_head"

    def classify(self, slices: Tensor, features: Tensor | None = None) -> Tensor:
        """The classifier R: two class maps ``[n, 2, h, w]`` whose spatial means are its logits.

        It sees the slices, or where it shares the encoder, the `features` of :meth:`Backbone.begin`.
        """
        seen = features if self.shares_encoder else slices
        return self.classifier(seen.to(self.classifier.head.weight.dtype))

    def embed(self, slices: Tensor, features: Tensor | None = None) -> Tensor:
        """SAM's embeddings ``[n, 256, e, e]`` of slices, the short way where their features are known."""
        return self.backbone.encode(slices) if features is None else self.backbone.finish(features)

    def activate(self, maps: Tensor) -> Tensor:
        """Eq. 4: CAMs ``[n, S, S]``."""
        return class_activation_map(maps, self.config.size, self.config.cam_difference)

    def prompt(self, cams: Tensor, logit: Tensor) -> list[Tensor]:
        """Eq. 5 to 8: the boxes of each slice; none where the classifier sees no liver: a fallback box invents one."""
        masks = binary_mask(cams, self.config.omega)
        masks &= (logit.sigmoid() >= self.config.presence)[:, None, None]
        return bounding_boxes(masks, self.config.regions, self.config.padding)

    def segment(self, embeddings: Tensor, boxes: list[Tensor], cams: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """SAM on n embedded slices with one or more boxes each: mask logits ``[n, S, S]`` and predicted IoU ``[n]``.

        The masks of several boxes on one slice are united. `cams` serve as dense prompt when the config asks for it.
        """
        counts = torch.tensor([len(box) for box in boxes])
        owner = torch.repeat_interleave(torch.arange(len(boxes)), counts).to(embeddings.device)
        dense = None
        if self.config.dense_mask and cams is not None:
            side = 4 * self.backbone.embedding_size
            mask = binary_mask(cams, self.config.omega)[owner, None].float() * 2 - 1
            dense = F.interpolate(mask * DENSE_LOGIT, size=(side, side), mode="bilinear", align_corners=False)
        logits, ious = self.backbone.decode(embeddings, boxes, self.config.size, dense)
        logits, ious = logits[:, self.config.mask_index].float(), ious[:, self.config.mask_index].float()
        logits = F.interpolate(logits[:, None], size=(self.config.size,) * 2, mode="bilinear", align_corners=False)[
            :, 0
        ]

        if len(owner) == len(boxes):
            return logits, ious
        united = logits.new_full((len(boxes), *logits.shape[1:]), torch.finfo(torch.float32).min)
        united = united.scatter_reduce(0, owner[:, None, None].expand_as(logits), logits, "amax")
        return united, ious.new_zeros(len(boxes)).scatter_reduce(0, owner, ious, "mean", include_self=False)


def build_model(config: ModelConfig, base_weights: dict[str, Tensor] | None = None) -> SAMMix:
    """SAM-Mix as `config` says: frozen base weights, trainable adapters, decoder and classifier.

    Args:
        base_weights: the backbone's public weights. None takes LiteMedSAM's from its package and leaves a ViT backbone
            with random weights, which only tests want.
    """
    backbone = _build_backbone(config, base_weights)
    backbone.image_encoder = add_lora(backbone.image_encoder, config.lora_rank, config.lora_targets, config.lora_blocks)
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
        from SAMMixLib.networks.sam_vit import build_sam

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
