"""SAM-Mix on a whole CT: gate, CAM, box, SAM, and back onto the scan's own grid; then again on single slices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from SAMMixLib.cam import liver_logit
from SAMMixLib.config import VolumeConfig
from SAMMixLib.device import out_of_memory
from SAMMixLib.embeddings import EmbeddingCache
from SAMMixLib.errors import SAMMixError
from SAMMixLib.frame_space import Bounds, frame_edges, pixel_bounds
from SAMMixLib.framing import Frame, frame_slices
from SAMMixLib.gating import gate
from SAMMixLib.interpolation import LOGIT_LIMIT, fill_between, spaced
from SAMMixLib.progress import Progress, silent
from SAMMixLib.prompts import bounding_boxes
from SAMMixLib.results import Resegmentation, SegmentationResult
from SAMMixLib.volume import Volume
from SAMMixLib.windowing import windowed

if TYPE_CHECKING:
    from SAMMixLib.segmentation import Segmenter


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


class Scan:
    """One CT before one model, with all that was found so far.

    The classifier sees every slice; only those between the gate's limits cost an encoder pass. What the paper does per
    slice is done per slice. Gate, box smoothing, refinement, interpolation between thin slices and the choice of the
    largest 3D component are the steps of :class:`~SAMMixLib.config.VolumeConfig`.

    Args:
        cache_bytes: how much of the embeddings to keep for :meth:`resegment`; 0 keeps none.
    """

    def __init__(self, segmenter: Segmenter, volume: Volume, cache_bytes: int = 0) -> None:
        self.segmenter, self.volume = segmenter, volume
        self._clock = _Clock()
        with self._clock("window"):
            self.stack = volume.axial()
            size = segmenter.config.model.size
            framed, self.frame = frame_slices(self.stack.array, self.stack.spacing, size)
            self.slices = windowed(framed, segmenter.config.model)
        count = len(self.slices)
        self.p_liver = np.full(count, np.nan, np.float32)  # NaN: not classified yet
        self.cams = torch.zeros(count, size, size, dtype=torch.float16)
        self.edges = [torch.zeros(0, 4) for _ in range(count)]  # the boxes that CAMs gave, in the frame
        self._embeddings = EmbeddingCache(cache_bytes)

    def segment(self, progress: Progress = silent, slices: Sequence[int] | None = None) -> SegmentationResult:
        """Segment the liver in the whole scan, or in given slices only; in smaller batches where memory runs out.

        Given slices stay on their own: the model's `presence` decides on each, not the gate, and no 3D component is
        dropped. All else is empty, and p(liver) NaN.

        Raises:
            SAMMixError: memory does not suffice for one slice, or there is no such slice.
            Cancelled: from `progress`.
        """
        if slices is not None:
            slices = sorted(set(slices))
            self._check(slices)
        while True:
            try:
                return self._segment(slices, progress)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.segmenter.batch_size == 1:
                    other = "close other programs" if self.segmenter.device.type == "cpu" else "use --device cpu"
                    raise SAMMixError(f"{self.segmenter.device}: not enough memory for one slice; {other}") from error
                self.segmenter.batch_size //= 2

    @torch.inference_mode()
    def _segment(self, chosen: list[int] | None, progress: Progress) -> SegmentationResult:
        segmenter, clock = self.segmenter, self._clock
        model, settings = segmenter.model, segmenter.config.volume
        with clock("classify"):
            shared = self._classify(range(len(self.slices)) if chosen is None else chosen, progress)
            gated = (
                gate(self.p_liver, settings)
                if chosen is None
                else np.isin(np.arange(len(self.slices)), chosen) & (self.p_liver >= model.config.presence)
            )
            self.edges = self._prompt(gated, settings)
        prompted = [k for k in range(len(self.slices)) if len(self.edges[k])]
        encoded = spaced(prompted, max(1, int(settings.gap_mm / self.stack.spacing[0])))
        mask_logits = np.full(self.cams.shape, -LOGIT_LIMIT, np.float16)
        predicted_iou = np.zeros(len(self.slices), np.float32)
        for done, ks in _batches(encoded, segmenter.batch_size):
            with clock("encode"):
                embeddings = self.embed(ks, shared)
            with clock("decode"):
                logits, iou, final = self._decode(ks, embeddings, [self.edges[k] for k in ks], settings.refine)
            for k, box in zip(ks, final, strict=True):
                self.edges[k] = box
            mask_logits[ks] = logits
            predicted_iou[ks] = iou
            progress("segment slices", done, len(encoded))
        with clock("resample"):
            fill_between(mask_logits, encoded, prompted)
            mask = _restore(mask_logits, self.frame)
            if settings.largest_component and segmenter.structure.single and chosen is None:
                mask = largest_component(mask)
            slice_masks = np.zeros(mask_logits.shape, bool)
            kept = np.flatnonzero(mask.any(axis=(1, 2)))
            slice_masks[kept] = self.frame.reduce(mask[kept], 0.0) >= 0.5
        cams = self.cams.numpy().copy()
        cams[~gated] = 0
        return SegmentationResult(
            mask=mask,
            slices=(self.slices[:, 0] * 255).round().byte().numpy(),
            slice_masks=slice_masks,
            cams=cams,
            boxes=[[_inclusive(box) for box in of_slice.tolist()] for of_slice in self.edges],
            p_liver=self.p_liver.copy(),
            predicted_iou=predicted_iou,
            spacing=self.stack.spacing,
            **_figures(mask, self.stack.array, self.stack.spacing),
            device=str(segmenter.device),
            dtype=str(segmenter.dtype).removeprefix("torch."),
            model_name=segmenter.name,
            structure=segmenter.structure.name,
            seconds=clock.seconds,
            warnings=self.volume.warnings,
        )

    @torch.inference_mode()
    def resegment(self, prompts: Mapping[int, Sequence[Bounds] | None], progress: Progress = silent) -> Resegmentation:
        """Segment given slices by given boxes, from the embeddings kept, or encoded now and kept.

        A decoder that was trained on the rough boxes of CAMs finds the liver beyond a box, too. So the mask of a given
        box ends at its sides, but for those that the CAM's own box of the slice has (to a pixel): nobody moved them.

        Args:
            prompts: for each slice its boxes, in pixels of the slice at full resolution. No box: no liver there. None:
                there is liver, whatever the classifier says, so the box of its CAM; no box where the CAM is empty.

        Raises:
            SAMMixError: no such slice, or a box that is not inside it.
            Cancelled: from `progress`.
        """
        ks = sorted(prompts)
        self._check(ks)
        model = self.segmenter.model
        by_cam = [k for k in ks if prompts[k] is None]
        self._classify([k for k in (ks if model.config.dense_mask else by_cam) if np.isnan(self.p_liver[k])], progress)
        edges = {k: self._given_edges(k, prompts[k]) for k in ks if prompts[k] is not None}
        for k in by_cam:
            edges[k] = self.edges[k] = self._cam_edges(k)
        prompted = [k for k in ks if len(edges[k])]
        mask = np.zeros((len(ks), *self.frame.shape), bool)
        predicted_iou = np.zeros(len(ks), np.float32)
        for done, part in _batches(prompted, self.segmenter.batch_size):
            logits, iou, _ = self._decode(part, self.embed(part), [edges[k] for k in part])
            places = [ks.index(k) for k in part]
            mask[places] = _restore(logits, self.frame)
            predicted_iou[places] = iou
            progress("segment slices", done, len(prompted))
        for k, of_slice in zip(ks, mask, strict=True):
            if prompts[k]:
                of_slice &= self._within(k, prompts[k])
        return Resegmentation(
            slices=ks,
            mask=mask,
            boxes=[[pixel_bounds(box, self.frame) for box in edges[k].tolist()] for k in ks],
            predicted_iou=predicted_iou,
            area_mm2=_areas(mask, self.stack.spacing),
        )

    def bounds(self, k: int) -> list[Bounds]:
        """The boxes that the CAM gave on a slice, in its pixels at full resolution."""
        return [pixel_bounds(box, self.frame) for box in self.edges[k].tolist()]

    def _check(self, slices: Sequence[int]) -> None:
        beyond = [k for k in slices if not 0 <= k < len(self.slices)]
        if beyond:
            raise SAMMixError(f"slice {beyond[0]}: the scan has the slices 0 to {len(self.slices) - 1}")

    def _classify(self, slices: Sequence[int], progress: Progress) -> dict[int, Tensor] | None:
        """Fill in p(liver) and CAMs; the encoder's features by slice where the classifier is a head on them."""
        model = self.segmenter.model
        shared: dict[int, Tensor] | None = {} if model.shares_encoder else None
        for done, ks in _batches(slices, self.segmenter.batch_size):
            part = self.slices[ks].to(self.segmenter.device)
            features = None if shared is None else model.backbone.begin(part)
            maps = model.classify(part, features)
            self.p_liver[ks] = liver_logit(maps).sigmoid().cpu().numpy()
            self.cams[ks] = model.activate(maps).half().cpu()
            if shared is not None:
                shared |= zip(ks, features, strict=True)
            progress("classify slices", done, len(slices))
        return shared

    def _prompt(self, gated: np.ndarray, settings: VolumeConfig) -> list[Tensor]:
        # The gate has decided on presence, so no slice is dropped again by its own p(liver).
        logit = torch.where(torch.from_numpy(gated), torch.inf, -torch.inf)
        boxes = self.segmenter.model.prompt(self.cams.float(), logit)
        return smooth_boxes(boxes, settings.smooth_boxes) if settings.smooth_boxes else boxes

    def _cam_edges(self, k: int) -> Tensor:
        return self.segmenter.model.prompt(self.cams[k : k + 1].float(), torch.tensor([torch.inf]))[0]

    def _given_edges(self, k: int, boxes: Sequence[Bounds]) -> Tensor:
        rows, columns = self.frame.shape
        for i0, j0, i1, j1 in boxes:
            if not (0 <= i0 <= i1 < columns and 0 <= j0 <= j1 < rows):
                raise SAMMixError(
                    f"slice {k}: the box {i0}, {j0} to {i1}, {j1} is not inside its {columns} x {rows} pixels"
                )
        return torch.tensor([frame_edges(box, self.frame) for box in boxes]).reshape(-1, 4)

    def _within(self, k: int, boxes: Sequence[Bounds]) -> np.ndarray:
        """Bool [rows, columns]: what the sides of the boxes that somebody moved leave."""
        rows, columns = self.frame.shape
        inside = np.zeros((rows, columns), bool)
        for box in boxes:
            i0, j0, i1, j1 = (
                border if any(abs(side - found[n]) <= 1 for found in self.bounds(k)) else side
                for n, (side, border) in enumerate(zip(box, (0, 0, columns, rows), strict=True))
            )
            inside[j0 : j1 + 1, i0 : i1 + 1] = True
        return inside

    def embed(self, ks: Sequence[int], features: Mapping[int, Tensor] | None = None) -> Tensor:
        """Embeddings ``[n, 256, e, e]``: those kept, the others encoded in one batch, from `features` where known."""
        segmenter, kept = self.segmenter, self._embeddings
        found = {k: kept.get(k) for k in ks if k in kept}
        missing = [k for k in ks if k not in found]
        if missing:
            known = None if features is None else torch.stack([features[k] for k in missing])
            encoded = segmenter.model.embed(self.slices[missing].to(segmenter.device), known)
            for k, embedding in zip(missing, encoded, strict=True):
                kept.put(k, embedding)
            if not found:
                return encoded
            found |= zip(missing, encoded, strict=True)
        return torch.stack([found[k].to(segmenter.device, segmenter.dtype) for k in ks])

    def _decode(
        self, ks: Sequence[int], embeddings: Tensor, boxes: list[Tensor], refine: int = 0
    ) -> tuple[np.ndarray, np.ndarray, list[Tensor]]:
        """Mask logits (float16), predicted IoU and the boxes that led to them.

        Each of `refine` further passes prompts with the bounds of the last mask.
        """
        model = self.segmenter.model
        boxes = [box.to(embeddings.device) for box in boxes]
        cams = self.cams[ks].float().to(embeddings.device)
        logits, iou = model.segment(embeddings, boxes, cams)
        for _ in range(refine):
            found = bounding_boxes(logits > 0, model.config.regions, model.config.padding)
            boxes = [new if len(new) else old for new, old in zip(found, boxes, strict=True)]
            logits, iou = model.segment(embeddings, boxes, cams)
        clipped = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).half().cpu().numpy()
        return clipped, iou.cpu().numpy(), [box.cpu() for box in boxes]


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
    with_liver = np.flatnonzero(mask.any(axis=(1, 2)))
    return {
        "volume_ml": float(mask.sum() * np.prod(spacing) / 1000),
        "area_mm2": _areas(mask, spacing),
        "mean_hu": float(hu[mask].mean()) if len(with_liver) else float("nan"),
        "slice_range": (int(with_liver[0]), int(with_liver[-1])) if len(with_liver) else None,
    }


def _areas(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    return (mask.sum(axis=(1, 2)) * (spacing[1] * spacing[2])).astype(np.float32)
