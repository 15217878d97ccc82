"""What a step of joint training minimises: the paper's two losses, through the steps of Fig. 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from SAMMixLib.config import Config
from SAMMixLib.inference.device import Runtime
from SAMMixLib.method.losses import activation_loss, classification_loss, outline_loss, segmentation_loss
from SAMMixLib.method.prompts import bounding_boxes, jitter
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.training.loaders import Batch, step_seed

BOXES = 3  # stream of random numbers


@dataclass(frozen=True)
class Objective:
    """The losses of SAM-Mix on batches of slices."""

    model: SAMMix
    config: Config
    runtime: Runtime

    def __call__(self, classify: Batch | None, segment: Batch | None, step: int) -> dict[str, Tensor]:
        """The losses of one step, unweighted; zeros where there is no batch.

        Args:
            classify: any slices, for the classification loss; those of them that have a mask for the activation loss.
            segment: labelled slices, for the segmentation loss.
        """
        classification = activation = segmentation = torch.zeros((), device=self.runtime.device)
        with self.runtime.autocast():
            if classify is not None:
                classification, activation = self.classification(classify)
            if segment is not None:
                segmentation = self.segmentation(segment, step)
        return {
            "classification_loss": classification,
            "segmentation_loss": segmentation,
            "activation_loss": activation,
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """``L_cls + lambda L_seg``, and what the config adds."""
        settings = self.config.training
        return (
            losses["classification_loss"]
            + settings.segmentation_weight * losses["segmentation_loss"]
            + settings.cam_weight * losses["activation_loss"]
        )

    def classification(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The classification loss of any slices, and the activation loss of those of them that have a mask."""
        slices, features = self._on_device(batch)
        maps, labels = self.model.classify(slices, features), batch.labels.to(self.runtime.device)
        settings = self.config.training
        loss = classification_loss(self.model.liver_logit(maps), labels, settings.classification)
        labelled = batch.has_liver_mask
        if not (settings.cam_weight and labelled.any()):
            return loss, loss.new_zeros(())
        maps, masks = maps[labelled], batch.masks[labelled].to(self.runtime.device)
        if settings.cam_loss == "outline":
            return loss, outline_loss(maps, masks, self.config.model.omega)
        return loss, activation_loss(maps, masks)

    def segmentation(self, batch: Batch, step: int) -> Tensor:
        """The segmentation loss of labelled slices; the prompts are constants."""
        masks = batch.masks.to(self.runtime.device)
        slices, features = self._on_device(batch)
        self.model.classifier.eval()  # boxes as in use
        with torch.no_grad():
            cams = self.model.cam(self.model.classify(slices, features))
        boxes, usable = self.training_boxes(cams, masks > 0.5, step)
        if not usable.any():
            return slices.new_zeros(())
        embeddings = self.model.embed(slices[usable], None if features is None else features[usable])
        logits, _ = self.model.decode(embeddings, boxes, cams[usable])
        return segmentation_loss(logits, masks[usable], self.config.training.cross_entropy)

    def training_boxes(self, cams: Tensor, masks: Tensor, step: int) -> tuple[list[Tensor], Tensor]:
        """A box for each slice that has one, and which slices those are.

        ``cam`` takes the paper's boxes, ``truth`` those of the masks with jitter, ``mixed`` draws between them: the
        decoder must learn to correct imperfect boxes. A CAM that is empty early in training falls back on the mask.
        """
        settings, model = self.config.training, self.config.model
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step, BOXES))
        of_cam = self.model.boxes_from_cam(cams, torch.ones(len(cams), dtype=torch.bool))
        of_mask = bounding_boxes(masks, "one", model.padding)
        of_mask = [jitter(box, settings.jitter, model.size, generator) for box in of_mask]
        share = {"cam": 1.0, "truth": 0.0, "mixed": 0.5}[settings.boxes]
        take_cam = torch.rand(len(cams), generator=generator) < share
        boxes = [a if take and len(a) else b for a, b, take in zip(of_cam, of_mask, take_cam, strict=True)]
        usable = torch.tensor([len(box) > 0 for box in boxes], device=cams.device)
        return [box for box in boxes if len(box)], usable

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The batch's slices, and their features where they are stored or the classifier needs them."""
        slices = batch.slices.to(self.runtime.device)
        if batch.features is not None:
            return slices, batch.features.to(self.runtime.device)
        return slices, self.model.encode_frozen(slices) if self.model.shares_encoder else None
