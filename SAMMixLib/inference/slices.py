"""SAM-Mix over a data set of slices: what validation and evaluation look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.config import VolumeConfig
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.inference.postprocessing import hysteresis_threshold
from SAMMixLib.method.cam import liver_logit
from SAMMixLib.method.prompts import bounding_boxes
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.method.windowing import windowed
from SAMMixLib.progress import Progress, silent

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


@torch.inference_mode()
def predict_slices(
    model: SAMMix,
    dataset: SliceDataset,
    prompt: str = "cam",
    *,
    batch_size: int = 8,
    threshold: float | None = None,
    gating: VolumeConfig | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
    features: np.ndarray | None = None,
) -> SlicePredictions:
    """Segment the slices of a data set, each on its own but for `gating`.

    Args:
        prompt: ``cam``: nothing but the image goes in. ``oracle``: the box of the reference mask, with the config's
            padding, prompts SAM; the classifier's answer is reported but not used. The two must never be mixed.
        threshold: on p(liver), in place of the model's own; from 0 every slice gets a prompt.
        gating: decide on each patient's slices together, as for a scan, instead of by the threshold alone.
        dtype: of autocast; float32 is none.
        features: [n, c, h, w] of :meth:`SAMMix.encode_frozen`, where they are known already.
    """
    if prompt not in PROMPTS:
        raise ValueError(f"prompt {prompt!r} is none of {PROMPTS}")
    model.eval()
    device = next(model.parameters()).device
    high = low = model.config.prompt_threshold if threshold is None else threshold
    given: list[Tensor] | None = None
    passed: np.ndarray | None = None
    if prompt == "oracle":
        given = bounding_boxes(torch.from_numpy(dataset.masks > 0), "one", model.config.padding)
    elif gating is not None:
        high, low = gating.gate_high, gating.gate_low
        classified = _p_liver(model, dataset, batch_size, dtype, features)
        passed = along_z(classified, dataset, gating)
    size = model.config.size
    masks, p_liver = np.zeros((len(dataset), size, size), bool), np.zeros(len(dataset), np.float32)
    prompted, cams = np.zeros(len(dataset), bool), np.zeros(masks.shape, np.uint8)
    boxes: list[Tensor] = []
    for part, slices, seen in _batches(model, dataset, batch_size, features):
        of_part = None if given is None else [box.to(device) for box in given[part]]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            if seen is None and model.shares_encoder:
                seen = model.encode_frozen(slices)
            maps = model.classify(slices, seen)
            p = liver_logit(maps).sigmoid()
            decided = p >= low if passed is None else torch.from_numpy(passed[part])
            found = model.segment(slices, maps, prompted=decided, boxes=of_part, features=seen)
        masks[part] = (found.mask_logits > 0).cpu().numpy()
        p_liver[part], prompted[part] = p.cpu().numpy(), decided.cpu().numpy()
        cams[part] = (found.cams.float() * 255).round().byte().cpu().numpy()
        boxes += [box.cpu() for box in found.boxes]
        progress("segment slices", part.stop, len(dataset))
    return SlicePredictions(masks, p_liver, prompted, high, low, boxes, cams)


def along_z(p_liver: np.ndarray, dataset: SliceDataset, gating: VolumeConfig) -> np.ndarray:
    """Bool [n]: the slices that pass the hysteresis along z of their patient."""
    passed = np.zeros(len(dataset), bool)
    for name in dataset.patient_names():
        own = np.flatnonzero(dataset.patients == name)
        own = own[np.argsort(dataset.indices[own])]
        passed[own] = hysteresis_threshold(p_liver[own], gating.gate_high, gating.gate_low)
    return passed


def _p_liver(
    model: SAMMix, dataset: SliceDataset, batch_size: int, dtype: torch.dtype, features: np.ndarray | None
) -> np.ndarray:
    parts = []
    for _, slices, seen in _batches(model, dataset, batch_size, features):
        with torch.autocast(slices.device.type, dtype, enabled=dtype != torch.float32):
            if seen is None and model.shares_encoder:
                seen = model.encode_frozen(slices)
            parts.append(liver_logit(model.classify(slices, seen)).sigmoid().cpu().numpy())
    return np.concatenate(parts)


def _batches(
    model: SAMMix, dataset: SliceDataset, batch_size: int, features: np.ndarray | None
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Which slices, as the model takes them, with their features where these are known."""
    device = next(model.parameters()).device
    for start in range(0, len(dataset), batch_size):
        part = slice(start, min(start + batch_size, len(dataset)))
        yield part, windowed(dataset.images[part], model.config).to(device), known(features, part, device)


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
