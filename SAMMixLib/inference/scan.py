"""SAM-Mix on a whole CT: which slices, CAM, box, SAM, and back onto the scan's own grid; then single slices again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.boxes import PixelBox
from SAMMixLib.imaging.resize import ResizeToSquare
from SAMMixLib.imaging.volume import Volume
from SAMMixLib.inference.device import out_of_memory
from SAMMixLib.inference.embedding_cache import EmbeddingCache
from SAMMixLib.inference.given_boxes import given_edges, inside_moved_sides
from SAMMixLib.inference.plausibility import doubts_about
from SAMMixLib.inference.postprocessing import gate, largest_component, smooth_boxes
from SAMMixLib.inference.quality import signs_of_doubt
from SAMMixLib.inference.results import Resegmentation, SegmentationResult, areas, measures, outer_pixels
from SAMMixLib.inference.thin_slices import (
    fill_between,
    fill_cams,
    fill_outlines,
    halfway,
    masks_alike,
    spaced,
    step_of,
    surely_alike,
)
from SAMMixLib.method.prompts import bounding_boxes
from SAMMixLib.method.windowing import windowed
from SAMMixLib.progress import Progress, after, silent

if TYPE_CHECKING:
    from SAMMixLib.inference.segmenter import Segmenter

LOGIT_LIMIT = 10.0
"""Logits are clipped here: where a mask is enlarged, no sure pixel pushes the outline far from itself."""


@dataclass
class StageClock:
    """Seconds of each stage, added up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


class Decision(NamedTuple):
    """Which slices are prompted, and by which rule and thresholds of p(liver); see :class:`SegmentationResult`."""

    prompted: np.ndarray  # bool [k]
    threshold: float
    keep_threshold: float
    gate: str = "hysteresis"


class Masks(NamedTuple):
    """What SAM says of a scan's slices."""

    logits: np.ndarray  # float16 [k, S, S], the lowest where there is no mask
    predicted_iou: np.ndarray  # float32 [k], 0 where SAM did not look


class Scan:
    """One CT before one model, with all that was found so far.

    The classifier sees every slice, or of thin ones as many as leave no question; of those that are prompted only some
    cost an encoder pass. What the paper does per slice are the steps of
    :class:`~SAMMixLib.method.sam_mix.SAMMix`; what is added on a whole scan are those of
    :mod:`~SAMMixLib.inference.thin_slices` and :mod:`~SAMMixLib.inference.postprocessing`, each with its switch in
    :class:`~SAMMixLib.config.VolumeConfig`.

    Args:
        cache_bytes: how much of the embeddings to keep for :meth:`resegment`; 0 keeps none.
    """

    def __init__(self, segmenter: Segmenter, volume: Volume, cache_bytes: int = 0) -> None:
        self.segmenter, self.volume = segmenter, volume
        self._clock = StageClock()
        with self._clock("window"):
            self.stack = volume.axial()
            size = segmenter.config.model.size
            self.resize = ResizeToSquare(self.stack.array.shape[1:], self.stack.spacing[1:], size)
            self.slices = windowed(self.resize.apply(self.stack.array), segmenter.config.model)
        count = len(self.slices)
        self.classified = np.zeros(count, bool)  # what the two below say of other slices is interpolated, or nothing
        self.p_liver = np.full(count, np.nan, np.float32)
        self.cams = torch.zeros(count, size, size, dtype=torch.float16)
        self.edges = [torch.zeros(0, 4) for _ in range(count)]  # the boxes that CAMs gave, in the square
        self._embeddings = EmbeddingCache(cache_bytes)

    def segment(self, progress: Progress = silent, slices: Sequence[int] | None = None) -> SegmentationResult:
        """Segment the liver in the whole scan, or in given slices only; in smaller batches where memory runs out.

        Given slices stay on their own: the model's prompt threshold decides on each, not the neighbours, and no 3D
        component is dropped. All else is empty, and p(liver) NaN.

        Raises:
            SAMMixError: memory does not suffice for one slice, or there is no such slice.
            Cancelled: from `progress`.
        """
        chosen = None if slices is None else self._checked(slices)
        while True:
            try:
                return self._segment(chosen, progress)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                runtime = self.segmenter.runtime
                if runtime.batch_size == 1:
                    other = "close other programs" if runtime.device.type == "cpu" else "use --device cpu"
                    raise SAMMixError(f"{runtime.device}: not enough memory for one slice; {other}") from error
                self.segmenter.runtime = replace(runtime, batch_size=runtime.batch_size // 2)

    @torch.inference_mode()
    def _segment(self, chosen: list[int] | None, progress: Progress) -> SegmentationResult:
        settings, clock, alone = self.segmenter.config.volume, self._clock, chosen is not None
        with clock("classify"):
            features = self._classify_along_z(progress) if chosen is None else self._classify(chosen, progress)
            decision = self._decide(alone)
            if not alone:
                seen, prompted = (np.flatnonzero(which).tolist() for which in (self.classified, decision.prompted))
                fill_cams(self.cams.numpy(), seen, prompted)
            self.edges = self.segmenter.model.boxes_from_cam(self.cams.float(), torch.from_numpy(decision.prompted))
            if settings.smooth_boxes:
                self.edges = smooth_boxes(self.edges, settings.smooth_boxes)
        masks = self._look([k for k in range(len(self.slices)) if len(self.edges[k])], features, progress)
        with clock("resample"):
            mask = _restored(self.resize, masks.logits)
            if settings.largest_component and self.segmenter.structure.single and not alone:
                mask = largest_component(mask)
        # Of chosen slices nothing is expected of the whole.
        doubts = [] if alone else doubts_about(mask, self.stack.array, self.stack.spacing, self.segmenter.structure)
        return _result(self, mask, decision, predicted_iou=masks.predicted_iou, doubts=doubts)

    def _decide(self, alone: bool) -> Decision:
        """Each slice by itself, or all along z."""
        if alone:
            threshold = self.segmenter.config.model.prompt_threshold
            return Decision(self.p_liver >= threshold, threshold, threshold)  # NaN reaches nothing
        settings = self.segmenter.config.volume
        return Decision(gate(self.p_liver, settings), settings.gate_high, settings.gate_low, settings.gate)

    def _look(self, with_box: list[int], features: dict[int, Tensor] | None, progress: Progress) -> Masks:
        """SAM on slices `with_box`: first far apart where they are thin, then between masks that are not alike.

        The slices in between get the outline between those of their neighbours.
        """
        settings, spacing = self.segmenter.config.volume, self.stack.spacing[0]
        shape = self.cams.shape
        masks = Masks(np.full(shape, -LOGIT_LIMIT, np.float16), np.zeros(len(self.slices), np.float32))
        step = step_of(settings.gap_mm, spacing)
        candidates = spaced(with_box, step)
        strides = max(1, step_of(settings.widest_gap_mm, spacing) // step) if step > 1 else 1
        looked, new = [], spaced(with_box, strides * step)
        while new:
            self._look_at(new, masks, features, progress=after(len(looked), progress))
            looked = sorted({*looked, *new})
            places = [candidates.index(k) for k in looked]
            alike = masks_alike(masks.logits[looked] > 0, settings.alike)
            new = [candidates[place] for place in halfway(places, alike)]
        with self._clock("resample"):
            fill_outlines(masks.logits, looked, with_box)
        return masks

    def _look_at(
        self, ks: list[int], masks: Masks, features: Mapping[int, Tensor] | None, *, progress: Progress
    ) -> None:
        """SAM on every one of the slices `ks`, into `masks`."""
        refine = self.segmenter.config.volume.refine
        for done, part in _batches(ks, self.segmenter.runtime.sam_batch_size):
            with self._clock("encode"):
                embeddings = self.embed(part, features)
            with self._clock("decode"):
                logits, iou, final = self._decode(part, embeddings, [self.edges[k] for k in part], refine)
            for k, box in zip(part, final, strict=True):
                self.edges[k] = box
            masks.logits[part], masks.predicted_iou[part] = logits, iou
            progress("segment slices", done, len(ks))

    @torch.inference_mode()
    def resegment(
        self, prompts: Mapping[int, Sequence[PixelBox] | None], progress: Progress = silent
    ) -> Resegmentation:
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
        ks = self._checked(prompts)
        by_cam = [k for k in ks if prompts[k] is None]
        needed = ks if self.segmenter.model.config.dense_mask else by_cam
        self._classify([k for k in needed if not self.classified[k]], progress)
        edges = {k: given_edges(boxes, self.resize, k) for k, boxes in prompts.items() if boxes is not None}
        for k in by_cam:
            (self.edges[k],) = self.segmenter.model.boxes_from_cam(self.cams[k : k + 1].float(), torch.tensor([True]))
            edges[k] = self.edges[k]
        with_box = [k for k in ks if len(edges[k])]
        mask = np.zeros((len(ks), *self.resize.shape), bool)
        predicted_iou = np.zeros(len(ks), np.float32)
        for done, part in _batches(with_box, self.segmenter.runtime.sam_batch_size):
            logits, iou, _ = self._decode(part, self.embed(part), [edges[k] for k in part])
            places = [ks.index(k) for k in part]
            mask[places], predicted_iou[places] = _restored(self.resize, logits), iou
            progress("segment slices", done, len(with_box))
        for k, of_slice in zip(ks, mask, strict=True):
            if boxes := prompts[k]:
                of_slice &= inside_moved_sides(boxes, self.bounds(k), self.resize.shape)
        return Resegmentation(
            slices=ks,
            mask=mask,
            boxes=[self.resize.invert_boxes(edges[k].tolist()) for k in ks],
            predicted_iou=predicted_iou,
            area_mm2=areas(mask, self.stack.spacing),
        )

    def bounds(self, k: int) -> list[PixelBox]:
        """The boxes that the CAM gave on a slice, in its pixels at full resolution."""
        return self.resize.invert_boxes(self.edges[k].tolist())

    def embed(self, ks: Sequence[int], features: Mapping[int, Tensor] | None = None) -> Tensor:
        """Embeddings ``[n, 256, e, e]``: those kept, the others encoded in one batch, from `features` where known."""
        segmenter, kept = self.segmenter, self._embeddings
        found = {k: kept.get(k) for k in ks if k in kept}
        missing = [k for k in ks if k not in found]
        if missing:
            shared = features is not None and all(k in features for k in missing)
            known = torch.stack([features[k] for k in missing]) if features is not None and shared else None
            encoded = segmenter.model.embed(self.slices[missing].to(segmenter.device), known)
            for k, embedding in zip(missing, encoded, strict=True):
                kept.put(k, embedding)
            if not found:
                return encoded
            found |= zip(missing, encoded, strict=True)
        return torch.stack([found[k].to(segmenter.device, segmenter.dtype) for k in ks])

    def _classify_along_z(self, progress: Progress) -> dict[int, Tensor] | None:
        """The classifier on all slices, or on thin ones until those in between leave no question; see `_classify`.

        p(liver) of the others is interpolated.
        """
        settings, count = self.segmenter.config.volume, len(self.slices)
        step = 1 if settings.classify_between else step_of(settings.gap_mm, self.stack.spacing[0])
        seen = sorted({*range(0, count, step), count - 1})
        features = self._classify(seen, progress)
        while new := halfway(seen, surely_alike(self.p_liver[seen], settings)):
            more = self._classify(new, after(len(seen), progress))
            features = None if features is None or more is None else features | more
            seen = sorted({*seen, *new})
        fill_between(self.p_liver, seen, range(count))
        self.classified[:] = np.isin(np.arange(count), seen)
        return features

    def _classify(self, slices: Sequence[int], progress: Progress) -> dict[int, Tensor] | None:
        """Fill in p(liver) and CAMs; the encoder's features by slice where the classifier is a head on them."""
        model = self.segmenter.model
        shared: dict[int, Tensor] | None = {} if model.shares_encoder else None
        for done, ks in _batches(slices, self.segmenter.runtime.batch_size):
            part = self.slices[ks].to(self.segmenter.device)
            features = None if shared is None else model.encode_frozen(part)
            maps = model.classify(part, features)
            self.p_liver[ks] = model.liver_logit(maps).sigmoid().cpu().numpy()
            self.cams[ks] = model.cam(maps).half().cpu()
            self.classified[ks] = True
            if shared is not None and features is not None:
                shared |= zip(ks, features, strict=True)
            progress("classify slices", done, len(slices))
        return shared

    def _decode(
        self, ks: Sequence[int], embeddings: Tensor, boxes: list[Tensor], refine: int = 0
    ) -> tuple[np.ndarray, np.ndarray, list[Tensor]]:
        """Mask logits (float16), predicted IoU and the boxes that led to them.

        Each of `refine` further passes prompts with the bounds of the last mask.
        """
        model = self.segmenter.model
        boxes = [box.to(embeddings.device) for box in boxes]
        cams = self.cams[ks].float().to(embeddings.device)
        logits, iou = model.decode(embeddings, boxes, cams)
        for _ in range(refine):
            found = bounding_boxes(logits > 0, model.config.regions, model.config.padding)
            boxes = [new if len(new) else old for new, old in zip(found, boxes, strict=True)]
            logits, iou = model.decode(embeddings, boxes, cams)
        clipped = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).half().cpu().numpy()
        return clipped, iou.cpu().numpy(), [box.cpu() for box in boxes]

    def _checked(self, slices: Iterable[int]) -> list[int]:
        ks = sorted(set(slices))
        beyond = [k for k in ks if not 0 <= k < len(self.slices)]
        if beyond:
            raise SAMMixError(f"slice {beyond[0]}: the scan has the slices 0 to {len(self.slices) - 1}")
        return ks


def _batches(slices: Sequence[int], size: int) -> Iterator[tuple[int, list[int]]]:
    """The slice numbers in batches, each with how many are done after it."""
    for start in range(0, len(slices), size):
        part = list(slices[start : start + size])
        yield start + len(part), part


def _restored(resize: ResizeToSquare, mask_logits: np.ndarray) -> np.ndarray:
    """Bool [k, rows, columns] on the scan's grid; only slices that hold something cost anything."""
    mask = np.zeros((len(mask_logits), *resize.shape), bool)
    for k in np.flatnonzero((mask_logits > 0).any(axis=(1, 2))):
        mask[k] = resize.invert(mask_logits[k : k + 1].astype(np.float32))[0] > 0
    return mask


def _result(
    scan: Scan, mask: np.ndarray, decision: Decision, *, predicted_iou: np.ndarray, doubts: list[str]
) -> SegmentationResult:
    with scan._clock("resample"):
        slice_masks = np.zeros(scan.cams.shape, bool)
        kept = np.flatnonzero(mask.any(axis=(1, 2)))
        slice_masks[kept] = scan.resize.apply_mask(mask[kept])
    cams = scan.cams.numpy().copy()
    cams[~decision.prompted] = 0
    segmenter, boxes = scan.segmenter, [[outer_pixels(box) for box in of_slice.tolist()] for of_slice in scan.edges]
    expected_dice = None
    if segmenter.quality is not None:
        signs = signs_of_doubt(slice_masks, cams, boxes, p_liver=scan.p_liver, predicted_iou=predicted_iou)
        expected_dice = segmenter.quality.expected_dice(signs)
    return SegmentationResult(
        mask=mask,
        slices=(scan.slices[:, 0] * 255).round().byte().numpy(),
        slice_masks=slice_masks,
        cams=cams,
        boxes=boxes,
        p_liver=scan.p_liver.copy(),
        classified=scan.classified.copy(),
        **decision._asdict(),
        predicted_iou=predicted_iou,
        spacing=scan.stack.spacing,
        **measures(mask, scan.stack.array, scan.stack.spacing),
        device=str(segmenter.device),
        dtype=segmenter.runtime.precision,
        model_name=segmenter.name,
        structure=segmenter.structure.name,
        expected_dice=expected_dice,
        seconds=scan._clock.seconds,
        warnings=(*scan.volume.warnings, *doubts),
    )
