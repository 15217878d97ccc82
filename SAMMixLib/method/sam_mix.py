"""Fig. 1 of the paper, step by step. All that segments or trains calls these steps, and none stands anywhere else.

::

    slices -> classify -> prompted?  -> boxes_from_cam -.
       |       (cam)     (p(liver))                      v
       `----> encode_frozen -> encode_adapted (LoRA) -> decode -> mask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMMixLib.config import ModelConfig
from SAMMixLib.method.cam import class_activation_map, liver_logit
from SAMMixLib.method.prompts import binary_mask, bounding_boxes, dense_prompt
from SAMMixLib.networks.classifiers.resnet38 import CamClassifier
from SAMMixLib.networks.sam.backbone import Backbone
from SAMMixLib.networks.sam.decoding import image_of_box


@dataclass
class SliceOutput:
    """What SAM-Mix says of n slices of S x S pixels."""

    logit: Tensor  # [n], log-odds of liver in the slice
    cams: Tensor  # [n, S, S] in 0..1
    boxes: list[Tensor]  # n tensors [boxes, 4], edge coordinates in pixels; no row where nothing was prompted
    mask_logits: Tensor  # [n, S, S]; the lowest value everywhere where nothing was prompted
    predicted_iou: Tensor  # [n], SAM's own estimate, 0 where nothing was prompted


class SAMMix(nn.Module):
    """SAM-Mix: image in, liver mask out, with no prompt from outside.

    The steps are pure: what one needs goes in, and nothing is kept.
    """

    def __init__(self, config: ModelConfig, classifier: CamClassifier, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.classifier = classifier
        self.backbone = backbone

    def forward(
        self,
        slices: Tensor,
        *,
        prompted: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
        features: Tensor | None = None,
    ) -> SliceOutput:
        """The whole figure on windowed slices ``[n, 1, S, S]`` in 0..1.

        Args:
            prompted: bool [n], which slices get a prompt; by the prompt threshold when None.
            boxes: n tensors ``[boxes, 4]`` that prompt in place of those of the CAM.
            features: of :meth:`encode_frozen`, where they are known already.
        """
        if features is None and self.shares_encoder:
            features = self.encode_frozen(slices)
        maps = self.classify(slices, features)
        logit = self.liver_logit(maps)
        cams = self.cam(maps)
        if boxes is None:
            boxes = self.boxes_from_cam(cams, self.prompted(logit) if prompted is None else prompted)

        with_box = torch.tensor([len(box) > 0 for box in boxes], device=slices.device)
        mask_logits = slices.new_full(cams.shape, torch.finfo(torch.float32).min, dtype=torch.float32)
        predicted_iou = torch.zeros_like(logit)
        if with_box.any():
            embeddings = self.embed(slices[with_box], None if features is None else features[with_box])
            given = [box for box in boxes if len(box)]
            mask_logits[with_box], predicted_iou[with_box] = self.decode(embeddings, given, cams[with_box])
        return SliceOutput(logit, cams, list(boxes), mask_logits, predicted_iou)

    def with_config(self, config: ModelConfig) -> SAMMix:
        """The same networks under another config."""
        return SAMMix(config, self.classifier, self.backbone)

    @property
    def shares_encoder(self) -> bool:
        """Whether the classifier is a head on the SAM encoder's frozen part, so that one pass serves both tasks."""
        return self.config.classifier == "encoder_head"

    def classify(self, slices: Tensor, features: Tensor | None = None) -> Tensor:
        """The classifier R: two class maps ``[n, 2, h, w]`` whose spatial means are its logits.

        It sees the slices, or where it shares the encoder, the `features` of :meth:`encode_frozen`.
        """
        seen = slices
        if self.shares_encoder:
            assert features is not None
            seen = features
        return self.classifier(seen.to(self.classifier.head.weight.dtype))

    def liver_logit(self, maps: Tensor) -> Tensor:
        """The log-odds of liver ``[n]`` of class maps, see :func:`~SAMMixLib.method.cam.liver_logit`."""
        return liver_logit(maps, self.config.pooling)

    def prompted(self, logit: Tensor) -> Tensor:
        """Bool [n]: which slices get a prompt, each by its own log-odds of liver ``[n]``."""
        return logit.sigmoid() >= self.config.prompt_threshold

    def cam(self, maps: Tensor) -> Tensor:
        """The CAMs ``[n, S, S]`` of class maps, see :func:`~SAMMixLib.method.cam.class_activation_map`."""
        return class_activation_map(maps, self.config.size, self.config.cam_difference)

    def boxes_from_cam(self, cams: Tensor, prompted: Tensor) -> list[Tensor]:
        """The boxes ``[boxes, 4]`` of each of n CAMs; none where `prompted` (bool [n]) says no, or the CAM is empty."""
        masks = binary_mask(cams, self.config.omega) & prompted.to(cams.device)[:, None, None]
        return bounding_boxes(masks, self.config.regions, self.config.padding)

    def encode_frozen(self, slices: Tensor) -> Tensor:
        """Features ``[n, c, h, w]`` of slices, by the part of SAM's encoder that training never changes."""
        return self.backbone.encode_frozen(slices)

    def encode_adapted(self, features: Tensor) -> Tensor:
        """SAM's embeddings ``[n, 256, e, e]`` of such features, through the part with the adapters."""
        return self.backbone.encode_adapted(features)

    def embed(self, slices: Tensor, features: Tensor | None = None) -> Tensor:
        """SAM's embeddings ``[n, 256, e, e]`` of slices, the short way where their features are known."""
        return self.backbone.encode(slices) if features is None else self.encode_adapted(features)

    def decode(self, embeddings: Tensor, boxes: Sequence[Tensor], cams: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """SAM on n embedded slices with one or more boxes each: mask logits ``[n, S, S]`` and predicted IoU ``[n]``.

        The masks of several boxes on one slice are united. `cams` serve as dense prompt when the config asks for it.
        """
        owner = image_of_box(boxes, embeddings.device)
        dense = None
        if self.config.dense_mask and cams is not None:
            dense = dense_prompt(binary_mask(cams, self.config.omega), 4 * self.backbone.embedding_size)[owner]
        edges = torch.cat([of_slice.reshape(-1, 4) for of_slice in boxes])
        logits, ious = self.backbone.decode(embeddings, edges, owner, slice_size=self.config.size, dense_masks=dense)
        logits, ious = logits[:, self.config.mask_index].float(), ious[:, self.config.mask_index].float()
        size = (self.config.size,) * 2
        logits = F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        if len(owner) == len(boxes):
            return logits, ious
        united = logits.new_zeros((len(boxes), *size))
        united = united.scatter_reduce(0, owner[:, None, None].expand_as(logits), logits, "amax", include_self=False)
        return united, ious.new_zeros(len(boxes)).scatter_reduce(0, owner, ious, "mean", include_self=False)
