"""What the worker does for its client: one function for each request of the protocol, and the table of them."""

from __future__ import annotations

import errno
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import write_arrays
from SAMMixLib.imaging.boxes import PixelBox
from SAMMixLib.imaging.itk import quiet_itk
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.quality import slices_to_review
from SAMMixLib.inference.scan import Scan
from SAMMixLib.inference.segmenter import Segmenter
from SAMMixLib.models.card import open_bundle
from SAMMixLib.models.registry import find_model
from SAMMixLib.process import return_memory
from SAMMixLib.progress import Progress
from SAMMixLib.worker.protocol import (
    RESULTS_KEPT,
    Load,
    Loaded,
    Message,
    Request,
    Resegment,
    Resegmented,
    Segment,
    Segmented,
    Stage,
    Suggest,
    Suggested,
    Train,
    Trained,
    Unload,
    Unloaded,
)

CACHE_BYTES = 512 << 20  # of embeddings: 256 slices of LiteMedSAM
PICTURES = "held_out.npz"  # in a run folder


@dataclass
class Workbench:
    """What stays loaded from one request to the next."""

    folder: Path
    report: Callable[[dict[str, Any]], None]  # tells the figures of a training
    segmenter: Segmenter | None = None
    loaded: tuple | None = None  # what makes `segmenter` the one that was asked for
    scan: Scan | None = None
    _results: dict[str, deque[list[Path]]] = field(default_factory=lambda: defaultdict(deque))
    _written: int = 0

    def write(self, kind: str, **images: sitk.Image) -> dict[str, str]:
        """Write the images of one result, and remove the files of an old one of the same kind."""
        results = self._results[kind]
        if len(results) == RESULTS_KEPT:
            for path in results.popleft():
                path.unlink(missing_ok=True)
        self._written += 1
        paths = {name: self.folder / f"{name}-{self._written}.nrrd" for name in images}
        results.append(list(paths.values()))
        for name, image in images.items():
            _write(image, paths[name])
        return {name: str(path) for name, path in paths.items()}


def load(bench: Workbench, progress: Progress, asked: Load) -> Loaded:
    folder = find_model(asked.model)
    wanted = (folder, open_bundle(folder).card, asked.device, asked.dtype, asked.batch_size)
    segmenter = bench.segmenter
    if segmenter is None or bench.loaded != wanted:
        _drop(bench)
        progress(Stage.LOAD, 0, 1)
        segmenter = Segmenter.from_bundle(folder, asked.device, asked.dtype, batch_size=asked.batch_size)
        bench.segmenter = segmenter
        bench.loaded = wanted
        progress(Stage.LOAD, 1, 1)
    return Loaded(
        name=segmenter.name,
        device=str(segmenter.device),
        dtype=segmenter.runtime.precision,
        structure=segmenter.structure.to_dict(),
    )


def segment(bench: Workbench, progress: Progress, asked: Segment) -> Segmented:
    if bench.segmenter is None:
        raise SAMMixError("no model is loaded; choose a model first")
    bench.scan = None  # the last one's memory is needed now
    started = time.perf_counter()
    progress(Stage.READ, 0, 1)
    scan = Scan(bench.segmenter, read_volume(asked.volume), CACHE_BYTES)
    result = scan.segment(progress, asked.slices)
    progress(Stage.WRITE, 0, 1)
    ks = range(len(result.mask)) if asked.slices is None else asked.slices
    cams = np.rint(result.cams.astype(np.float32) * 255).astype(np.uint8)
    written = bench.write(
        "segment", mask=scan.stack.to_grid(result.mask), cam=scan.stack.maps_to_image(cams, scan.resize)
    )
    gate_high = bench.segmenter.config.volume.gate_high
    bench.scan = scan
    return_memory()
    progress(Stage.WRITE, 1, 1)
    return Segmented(
        **written,
        slices_total=len(result.mask),
        boxes={k: [*scan.bounds(k)] for k in range(len(result.mask)) if result.boxes[k]},
        p_liver=_numbers(result.p_liver[ks]),
        predicted_iou=_numbers(result.predicted_iou[ks]),
        area_mm2=_numbers(result.area_mm2[ks]),
        review=slices_to_review(result.p_liver, result.predicted_iou, result.area_mm2, gate_high),
        volume_ml=result.volume_ml,
        slice_range=result.slice_range,
        model=result.model_name,
        device=result.device,
        seconds=result.seconds | {"total": time.perf_counter() - started},
        warnings=list(result.warnings),
    )


def resegment(bench: Workbench, progress: Progress, asked: Resegment) -> Resegmented:
    if bench.scan is None:
        raise SAMMixError("no scan is held any more; segment it again first")
    prompts = {each.k: None if each.boxes is None else [PixelBox(*box) for box in each.boxes] for each in asked.slices}
    result = bench.scan.resegment(prompts, progress)
    return Resegmented(
        **bench.write("resegment", mask=sitk.GetImageFromArray(result.mask.astype(np.uint8))),
        slices=result.slices,
        boxes={k: [*boxes] for k, boxes in zip(result.slices, result.boxes, strict=True)},
        predicted_iou=_numbers(result.predicted_iou),
        area_mm2=_numbers(result.area_mm2),
    )


def suggest(bench: Workbench, progress: Progress, asked: Suggest) -> Suggested:
    from SAMMixLib.inference.active_learning import suggest as rank

    if bench.scan is None:
        raise SAMMixError("no scan is held any more; segment it again first")
    found = rank(bench.scan, asked.labelled, asked.count, progress)
    return Suggested([int(k) for k, _ in found], [reason for _, reason in found])


def train(bench: Workbench, progress: Progress, asked: Train) -> Trained:
    from SAMMixLib.training.finetuning import FineTuning, fine_tune  # its packages are not what segmenting needs

    _drop(bench)
    how = FineTuning(asked.preset, asked.seed, watch=bench.report)
    runtime = Runtime.choose(asked.device, asked.dtype).told(progress)
    tuned = fine_tune(asked.slices, asked.model, asked.run, how, runtime)
    pictures = Path(asked.run) / PICTURES
    write_arrays(
        pictures,
        images=tuned.images,
        reference=tuned.references.astype(np.uint8),
        before=tuned.before_masks.astype(np.uint8),
        after=tuned.after_masks.astype(np.uint8),
    )
    return Trained(
        bundle=str(tuned.bundle),
        before=tuned.before,
        after=tuned.after,
        better=tuned.better,
        held_out=tuned.held_out,
        pictures=str(pictures),
        warning=tuned.warning,
        seconds=tuned.seconds,
    )


def unload(bench: Workbench, progress: Progress, asked: Unload) -> Unloaded:
    _drop(bench)
    return Unloaded()


ANSWERED_BY: dict[type[Request], Callable[..., Message]] = {
    Load: load,
    Segment: segment,
    Resegment: resegment,
    Suggest: suggest,
    Train: train,
    Unload: unload,
}


def answer(bench: Workbench, progress: Progress, asked: Request) -> Message:
    """Do what is asked for."""
    return ANSWERED_BY[type(asked)](bench, progress, asked)


def _drop(bench: Workbench) -> None:
    bench.segmenter = bench.loaded = bench.scan = None
    return_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _numbers(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _write(image: sitk.Image, path: Path) -> None:
    """Write uncompressed. Raises OSError where the file did not come out whole."""
    voxels = image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
    cause = None
    try:
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=False)
    except RuntimeError as error:
        cause = error
    if cause or path.stat().st_size < voxels:
        path.unlink(missing_ok=True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from cause
