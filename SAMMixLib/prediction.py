"""SAM-Mix over a data set of slices: what validation and evaluation look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.cam import liver_logit
from SAMMixLib.config import VolumeConfig
from SAMMixLib.gating import gate
from SAMMixLib.model import SAMMix
from SAMMixLib.progress import Progress, silent
from SAMMixLib.prompts import bounding_boxes
from SAMMixLib.slices import SliceDataset
from SAMMixLib.windowing import windowed

PROMPTS = ("cam", "oracle")


@dataclass
class SlicePredictions:
    """Predictions for n slices of S x S."""

    masks: np.ndarray  # bool [n, S, S]
    p_liver: np.ndarray  # float32 [n]
    boxes: list[Tensor]  # n tensors [boxes, 4], edge coordinates
    cams: np.ndarray | None = None  # uint8 [n, S, S], 255 is 1; of networks that have none None


@torch.inference_mode()
def predict_slices(
    model: SAMMix,
    dataset: SliceDataset,
    prompt: str = "cam",
    batch_size: int = 8,
    dtype: torch.dtype = torch.float32,
    gating: VolumeConfig | None = None,
    progress: Progress = silent,
    features: np.ndarray | None = None,
) -> SlicePredictions:
    """Segment the slices of a data set, each on its own but for `gating`.

    Args:
        prompt: ``cam``: nothing but the image goes in. ``oracle``: the box of the reference mask, with the config's
            padding, prompts SAM; the classifier's answer is reported but not used. The two must never be mixed.
        dtype: of autocast; float32 is none.
        gating: decide on each patient's slices together, as for a scan, instead of by `presence` alone.
        features: [n, c, h, w], what the backbone's frozen part makes of the slices, where that is known already.
    """
    if prompt not in PROMPTS:
        raise ValueError(f"prompt {prompt!r} is none of {PROMPTS}")
    model.eval()
    device = next(model.parameters()).device
    size = model.config.size
    masks, p_liver = np.zeros((len(dataset), size, size), bool), np.zeros(len(dataset), np.float32)
    cams = np.zeros(masks.shape, np.uint8)
    given: list[Tensor] | None = None
    if prompt == "oracle":
        given = bounding_boxes(torch.from_numpy(dataset.masks > 0), "one", model.config.padding)
    elif gating is not None:
        given = _gated_boxes(model, dataset, gating, batch_size, device, dtype, features)
    boxes: list[Tensor] = []
    for start in range(0, len(dataset), batch_size):
        part = slice(start, min(start + batch_size, len(dataset)))
        slices = windowed(dataset.images[part], model.config).to(device)
        of_part = None if given is None else [box.to(device) for box in given[part]]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output = model(slices, of_part, known(features, part, device))
        masks[part] = (output.mask_logits > 0).cpu().numpy()
        p_liver[part] = output.logit.sigmoid().cpu().numpy()
        cams[part] = (output.cams.float() * 255).round().byte().cpu().numpy()
        boxes += [box.cpu() for box in output.boxes]
        progress("segment slices", part.stop, len(dataset))
    return SlicePredictions(masks, p_liver, boxes, cams)


def _gated_boxes(
    model: SAMMix,
    dataset: SliceDataset,
    gating: VolumeConfig,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    features: np.ndarray | None,
) -> list[Tensor]:
    """CAM boxes on the slices that pass the gate along z of their patient."""
    p_liver, cams = [], []
    for start in range(0, len(dataset), batch_size):
        part = slice(start, start + batch_size)
        slices = windowed(dataset.images[part], model.config).to(device)
        seen = known(features, part, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            if seen is None and model.shares_encoder:
                seen = model.backbone.begin(slices)
            maps = model.classify(slices, seen)
        p_liver.append(liver_logit(maps).sigmoid().cpu().numpy())
        cams.append(model.activate(maps).half().cpu())
    p, passed = np.concatenate(p_liver), np.zeros(len(dataset), bool)
    for name in dataset.patient_names():
        own = np.flatnonzero(dataset.patients == name)
        own = own[np.argsort(dataset.indices[own])]
        passed[own] = gate(p[own], gating)
    logit = torch.where(torch.from_numpy(passed), torch.inf, -torch.inf)
    return model.prompt(torch.cat(cams).float(), logit)


def known(features: np.ndarray | None, which: slice | np.ndarray, device: torch.device) -> Tensor | None:
    """Some rows of stored features as a tensor; None where nothing is stored."""
    return None if features is None else torch.from_numpy(np.array(features[which])).float().to(device)


def mean_dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Mean Dice per slice over the slices where either mask holds liver: a miss and a false alarm both count 0."""
    predicted, reference = predicted.astype(bool), reference.astype(bool)
    overlap = (predicted & reference).sum(axis=(1, 2))
    total = predicted.sum(axis=(1, 2)) + reference.sum(axis=(1, 2))
    counted = total > 0
    return float((2 * overlap[counted] / total[counted]).mean()) if counted.any() else float("nan")
