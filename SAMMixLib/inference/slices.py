"""SAM-Mix over a data set of slices: what validation and evaluation look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.config import VolumeConfig
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.postprocessing import gate
from SAMMixLib.method.prompts import bounding_boxes
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.method.windowing import windowed

PROMPTS = ("cam", "oracle")


@dataclass
class SlicePredictions:
    """Predictions for n slices of S x S."""

    masks: np.ndarray  # bool [n, S, S]
    p_liver: np.ndarray  # float32 [n]
    prompted: np.ndarray  # bool [n], where the classifier sees liver, by the thresholds below
    threshold: float  # of p(liver): a run of neighbouring slices is prompted if one of them reaches it
    keep_threshold: float  # and each slice of the run reaches this one; both are equal where slices stand alone
    boxes: list[Tensor]  # n tensors [boxes, 4], edge coordinates
    cams: np.ndarray | None = None  # uint8 [n, S, S], 255 is 1; of networks that have none None
    predicted_iou: np.ndarray | None = None  # float32 [n], SAM's own estimate; 0 where it did not look


@dataclass(frozen=True)
class SlicePredictor:
    """Segments the slices of a data set, each on its own but for `along_z`.

    Args:
        model: on its device.
        runtime: its dtype is that of autocast.
        along_z: decide on each patient's slices together, as for a scan, instead of by the prompt threshold alone.
        prompt_all: every slice with a CAM gets a prompt, whatever p(liver): what a threshold is chosen on.
    """

    model: SAMMix
    runtime: Runtime = Runtime()
    along_z: VolumeConfig | None = None
    prompt_all: bool = False

    @torch.inference_mode()
    def __call__(
        self, dataset: SliceDataset, prompt: str = "cam", features: np.ndarray | None = None
    ) -> SlicePredictions:
        """Predict.

        Args:
            prompt: ``cam``: nothing but the image goes in. ``oracle``: the box of the reference mask, with the
                config's padding, prompts SAM; the classifier's answer is reported but not used. The two must never be
                mixed.
            features: [n, c, h, w] of the backbone's frozen part, where they are known already.
        """
        if prompt not in PROMPTS:
            raise ValueError(f"prompt {prompt!r} is none of {PROMPTS}")
        model, size = self.model.eval(), self.model.config.size
        high = low = 0.0 if self.prompt_all else model.config.prompt_threshold
        given = prompted = None
        if prompt == "oracle":
            given = bounding_boxes(torch.from_numpy(dataset.masks > 0), "one", model.config.padding)
        elif self.along_z is not None:
            high, low = self.along_z.gate_high, self.along_z.gate_low
            given, prompted = self._along_z(dataset, self.along_z, features)
        masks, p_liver = np.zeros((len(dataset), size, size), bool), np.zeros(len(dataset), np.float32)
        cams, boxes = np.zeros(masks.shape, np.uint8), []
        predicted_iou = np.zeros(len(dataset), np.float32)
        for part in self._batches(len(dataset)):
            slices = self._slices(dataset, part)
            of_part = None if given is None else [box.to(slices.device) for box in given[part]]
            every = torch.ones(len(slices), dtype=torch.bool) if self.prompt_all else None
            with self.runtime.autocast():
                output = model(slices, prompted=every, boxes=of_part, features=known(features, part, slices.device))
            masks[part] = (output.mask_logits > 0).cpu().numpy()
            p_liver[part] = output.logit.sigmoid().cpu().numpy()
            cams[part] = (output.cams.float() * 255).round().byte().cpu().numpy()
            predicted_iou[part] = output.predicted_iou.float().cpu().numpy()
            boxes += [box.cpu() for box in output.boxes]
            self.runtime.progress("segment slices", part.stop, len(dataset))
        if prompted is None:
            prompted = p_liver >= low
        return SlicePredictions(masks, p_liver, prompted, high, low, boxes, cams, predicted_iou)

    def _along_z(
        self, dataset: SliceDataset, settings: VolumeConfig, features: np.ndarray | None
    ) -> tuple[list[Tensor], np.ndarray]:
        """CAM boxes of the slices that pass the gate along z of their patient; which pass, bool [n]."""
        p_liver, prompted = np.zeros(len(dataset), np.float32), np.zeros(len(dataset), bool)
        cams = torch.zeros(len(dataset), *(self.model.config.size,) * 2, dtype=torch.float16)  # as a scan keeps them
        for part in self._batches(len(dataset)):
            slices = self._slices(dataset, part)
            seen = known(features, part, slices.device)
            with self.runtime.autocast():
                if seen is None and self.model.shares_encoder:
                    seen = self.model.encode_frozen(slices)
                maps = self.model.classify(slices, seen)
            p_liver[part] = self.model.liver_logit(maps).sigmoid().cpu().numpy()
            cams[part] = self.model.cam(maps).half().cpu()
        for name in dataset.patient_names():
            own = np.flatnonzero(dataset.patients == name)
            own = own[np.argsort(dataset.indices[own])]
            prompted[own] = gate(p_liver[own], settings)
        return self.model.boxes_from_cam(cams.float(), torch.from_numpy(prompted)), prompted

    def _slices(self, dataset: SliceDataset, part: slice) -> Tensor:
        device = next(self.model.parameters()).device
        return windowed(dataset.images[part], self.model.config).to(device)

    def _batches(self, count: int) -> list[slice]:
        size = self.runtime.batch_size
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def known(features: np.ndarray | None, which: slice | np.ndarray, device: torch.device) -> Tensor | None:
    """Some rows of stored features as a tensor; None where nothing is stored."""
    return None if features is None else torch.from_numpy(np.array(features[which])).float().to(device)
