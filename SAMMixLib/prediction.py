"""SAM-Mix over a data set of slices: what validation and evaluation look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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


@torch.inference_mode()
def predict_slices(
    model: SAMMix,
    dataset: SliceDataset,
    prompt: str = "cam",
    batch_size: int = 8,
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> SlicePredictions:
    """Segment every slice on its own, with none of the steps that need a whole scan.

    Args:
        prompt: ``cam``: nothing but the image goes in. ``oracle``: the box of the reference mask, with the config's
            padding, prompts SAM; the classifier's answer is reported but not used. The two must never be mixed.
    """
    if prompt not in PROMPTS:
        raise ValueError(f"prompt {prompt!r} is none of {PROMPTS}")
    model.eval()
    device = next(model.parameters()).device
    masks, p_liver, boxes = [], [], []
    for start in range(0, len(dataset), batch_size):
        part = dataset.select(np.arange(start, min(start + batch_size, len(dataset))))
        slices = windowed(part.images, model.config).to(device)
        given = None
        if prompt == "oracle":
            references = torch.from_numpy(part.masks > 0)
            given = [box.to(device) for box in bounding_boxes(references, "one", model.config.padding)]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output = model(slices, given)
        masks.append((output.mask_logits > 0).cpu().numpy())
        p_liver.append(output.logit.sigmoid().cpu().numpy())
        boxes += [box.cpu() for box in output.boxes]
        progress("segment slices", start + len(part), len(dataset))
    return SlicePredictions(np.concatenate(masks), np.concatenate(p_liver), boxes)


def mean_dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Mean Dice per slice over the slices where either mask holds liver: a miss and a false alarm both count 0."""
    predicted, reference = predicted.astype(bool), reference.astype(bool)
    overlap = (predicted & reference).sum(axis=(1, 2))
    total = predicted.sum(axis=(1, 2)) + reference.sum(axis=(1, 2))
    counted = total > 0
    return float((2 * overlap[counted] / total[counted]).mean()) if counted.any() else float("nan")
