"""SAM-Mix on a whole CT: gate, CAM, box, SAM, and back onto the scan's own grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from SAMMixLib.bundle import load_bundle, open_bundle
from SAMMixLib.cam import liver_logit
from SAMMixLib.config import Config, VolumeConfig
from SAMMixLib.device import choose_device, choose_dtype
from SAMMixLib.errors import SAMMixError
from SAMMixLib.framing import Frame, frame_slices
from SAMMixLib.gating import gate
from SAMMixLib.interpolation import LOGIT_LIMIT, fill_between, spaced
from SAMMixLib.model import SAMMix
from SAMMixLib.networks.lora import merge_lora
from SAMMixLib.progress import Progress, silent
from SAMMixLib.prompts import bounding_boxes
from SAMMixLib.results import SegmentationResult
from SAMMixLib.volume import Volume
from SAMMixLib.windowing import windowed


@dataclass
class Segmenter:
    """A model ready to segment: adapters merged, on its device, in its precision."""

    model: SAMMix
    config: Config
    name: str
    device: torch.device
    dtype: torch.dtype
    batch_size: int = 8

    @classmethod
    def from_bundle(
        cls,
        folder: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
        base_weights: str | Path | None = None,
    ) -> Segmenter:
        """Load a bundle for inference.

        Raises:
            SAMMixError: the bundle, its base weights or the device are not usable.
        """
        bundle = open_bundle(folder)
        chosen, _ = choose_device(device)
        precision = choose_dtype(chosen, dtype)
        model = prepare(load_bundle(folder, base_weights), chosen, precision)
        return cls(model, bundle.config, bundle.name, chosen, precision, batch_size)

    def segment(self, volume: Volume, progress: Progress = silent) -> SegmentationResult:
        """The liver of `volume`, see :func:`segment_volume`; in smaller batches where memory runs out."""
        while True:
            try:
                return segment_volume(self, volume, progress)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise SAMMixError(f"{self.device}: not enough memory for one slice; use --device cpu") from None
                self.batch_size //= 2


def prepare(model: SAMMix, device: torch.device, dtype: torch.dtype) -> SAMMix:
    """Merge the adapters and convert the networks to `dtype`; the prompt encoder stays in float32."""
    model = model.eval().requires_grad_(False)
    model.backbone.image_encoder = merge_lora(model.backbone.image_encoder)
    model.backbone.cast(dtype)
    model.classifier.to(dtype)
    return model.to(device)


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@torch.inference_mode()
def segment_volume(segmenter: Segmenter, volume: Volume, progress: Progress = silent) -> SegmentationResult:
    """Segment the liver of a CT in any orientation.

    The classifier sees every slice; only those between the gate's limits cost an encoder pass. What the paper does per
    slice is done per slice. Gate, box smoothing, refinement, interpolation between thin slices and the choice of the
    largest 3D component are the steps of :class:`~SAMMixLib.config.VolumeConfig`.

    Raises:
        Cancelled: from `progress`.
    """
    model, settings, clock = segmenter.model, segmenter.config.volume, _Clock()
    size = segmenter.config.model.size
    with clock("window"):
        stack = volume.axial()
        framed, frame = frame_slices(stack.array, stack.spacing, size)
        slices = windowed(framed, segmenter.config.model)
    with clock("classify"):
        found = _classify(segmenter, slices, progress)
        gated = gate(found.p_liver, settings.gate_high, settings.gate_low)
        boxes = _prompt(model, found, gated, settings)
    prompted = [k for k in range(len(slices)) if len(boxes[k])]
    encoded = spaced(prompted, max(1, int(settings.gap_mm / stack.spacing[0])))
    mask_logits = np.full((len(slices), size, size), -LOGIT_LIMIT, np.float16)
    predicted_iou = np.zeros(len(slices), np.float32)
    for done, ks in _batches(encoded, segmenter.batch_size):
        with clock("encode"):
            embeddings = _encode(segmenter, slices[ks], None if found.features is None else found.features[ks])
        with clock("decode"):
            logits, iou, final = _decode(model, embeddings, [boxes[k] for k in ks], found.cams[ks], settings.refine)
        for k, box in zip(ks, final, strict=True):
            boxes[k] = box
        mask_logits[ks] = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).half().cpu().numpy()
        predicted_iou[ks] = iou.cpu().numpy()
        progress("segment slices", done, len(encoded))
    with clock("resample"):
        fill_between(mask_logits, encoded, prompted)
        mask = _restore(mask_logits, frame)
        if settings.largest_component:
            mask = largest_component(mask)
        slice_masks = np.zeros(mask_logits.shape, bool)
        kept = np.flatnonzero(mask.any(axis=(1, 2)))
        slice_masks[kept] = frame.reduce(mask[kept], 0.0) >= 0.5
    cams = found.cams.numpy().copy()
    cams[~gated] = 0
    return SegmentationResult(
        mask=mask,
        slices=(slices[:, 0] * 255).round().byte().numpy(),
        slice_masks=slice_masks,
        cams=cams,
        boxes=[[_inclusive(box) for box in of_slice.tolist()] for of_slice in boxes],
        p_liver=found.p_liver,
        predicted_iou=predicted_iou,
        spacing=stack.spacing,
        **_figures(mask, stack.array, stack.spacing),
        device=str(segmenter.device),
        dtype=str(segmenter.dtype).removeprefix("torch."),
        model_name=segmenter.name,
        seconds=clock.seconds,
        warnings=volume.warnings,
    )


@dataclass
class _Classified:
    p_liver: np.ndarray  # float32 [k]
    cams: Tensor  # float16 [k, S, S], on the CPU
    features: Tensor | None  # [k, c, h, w] of a shared encoder


def _classify(segmenter: Segmenter, slices: Tensor, progress: Progress) -> _Classified:
    model = segmenter.model
    p_liver, cams, features = [], [], []
    for done, ks in _batches(range(len(slices)), segmenter.batch_size):
        part = slices[ks].to(segmenter.device)
        seen = model.backbone.begin(part) if model.shares_encoder else None
        maps = model.classify(part, seen)
        p_liver.append(liver_logit(maps).sigmoid().cpu().numpy())
        cams.append(model.activate(maps).half().cpu())
        if seen is not None:
            features.append(seen)
        progress("classify slices", done, len(slices))
    return _Classified(np.concatenate(p_liver), torch.cat(cams), torch.cat(features) if features else None)


def _prompt(model: SAMMix, found: _Classified, gated: np.ndarray, settings: VolumeConfig) -> list[Tensor]:
    # The gate has decided on presence, so no slice is dropped again by its own p(liver).
    logit = torch.where(torch.from_numpy(gated), torch.inf, -torch.inf)
    boxes = model.prompt(found.cams.float(), logit)
    return smooth_boxes(boxes, settings.smooth_boxes) if settings.smooth_boxes else boxes


def _encode(segmenter: Segmenter, slices: Tensor, features: Tensor | None) -> Tensor:
    return segmenter.model.embed(slices.to(segmenter.device), features)


def _decode(
    model: SAMMix, embeddings: Tensor, boxes: list[Tensor], cams: Tensor, refine: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Mask logits, predicted IoU and the boxes that led to them; a refinement prompts with the last mask's bounds."""
    boxes = [box.to(embeddings.device) for box in boxes]
    cams = cams.float().to(embeddings.device)
    logits, iou = model.segment(embeddings, boxes, cams)
    for _ in range(refine):
        found = bounding_boxes(logits > 0, model.config.regions, model.config.padding)
        boxes = [new if len(new) else old for new, old in zip(found, boxes, strict=True)]
        logits, iou = model.segment(embeddings, boxes, cams)
    return logits, iou, [box.cpu() for box in boxes]


def _restore(mask_logits: np.ndarray, frame: Frame) -> np.ndarray:
    """Bool [k, rows, columns] on the scan's grid; only slices that hold something cost anything."""
    mask = np.zeros((len(mask_logits), *frame.shape), bool)
    for k in np.flatnonzero((mask_logits > 0).any(axis=(1, 2))):
        mask[k] = frame.restore(mask_logits[k : k + 1].astype(np.float32))[0] > 0
    return mask


def _batches(slices: Sequence[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """The slice numbers in batches of `size`, each with how many are done after it."""
    for start in range(0, len(slices), size):
        part = list(slices[start : start + size])
        yield start + len(part), part


def smooth_boxes(boxes: list[Tensor], reach: int) -> list[Tensor]:
    """Replace each side of a slice's box by its median over the slices within `reach`, where each has one box."""
    smooth = []
    for k, box in enumerate(boxes):
        near = [other for other in boxes[max(0, k - reach) : k + reach + 1] if len(other) == 1]
        smooth.append(torch.cat(near).median(dim=0, keepdim=True).values if len(box) == 1 else box)
    return smooth


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected component of a 3D mask."""
    bounds = ndimage.find_objects(mask.astype(np.uint8))
    if not bounds:
        return mask
    labels, count = ndimage.label(mask[bounds[0]])
    if count > 1:
        kept = np.zeros_like(mask)
        kept[bounds[0]] = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
        return kept
    return mask


def _inclusive(box: list[float]) -> tuple[int, int, int, int]:
    """Edge coordinates as the inclusive pixel bounds that hold them."""
    x0, y0, x1, y1 = box
    return int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)) - 1, int(np.ceil(y1)) - 1


def _figures(mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]) -> dict:
    counts = mask.sum(axis=(1, 2))
    with_liver = np.flatnonzero(counts)
    return {
        "volume_ml": float(counts.sum() * np.prod(spacing) / 1000),
        "area_mm2": (counts * (spacing[1] * spacing[2])).astype(np.float32),
        "mean_hu": float(hu[mask].mean()) if len(with_liver) else float("nan"),
        "slice_range": (int(with_liver[0]), int(with_liver[-1])) if len(with_liver) else None,
    }
