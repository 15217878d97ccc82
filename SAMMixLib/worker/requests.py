"""What the worker does for its client: one function a request, and the table of them."""

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
from SAMMixLib.imaging.itk import quiet_itk
from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.inference.device import Runtime, choose_device
from SAMMixLib.inference.quality import slices_to_review
from SAMMixLib.inference.scan import Scan
from SAMMixLib.inference.segmenter import Segmenter
from SAMMixLib.models.card import open_bundle
from SAMMixLib.models.registry import find_model
from SAMMixLib.process import return_memory
from SAMMixLib.progress import Progress
from SAMMixLib.worker.protocol import RESULTS_KEPT

CACHE_BYTES = 512 << 20  # of embeddings: 256 slices of LiteMedSAM
PICTURES = "held_out.npz"  # in a run folder


@dataclass
class State:
    """What stays loaded from one request to the next."""

    folder: Path
    report: Callable[[dict[str, float]], None]  # tells the figures of a training
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


def load(
    state: State,
    progress: Progress,
    model: str = "starter",
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 8,
) -> dict[str, Any]:
    folder = find_model(model)
    wanted = (folder, open_bundle(folder).card, device, dtype, batch_size)
    if state.loaded != wanted:
        _drop(state)
        progress("load model", 0, 1)
        state.segmenter = Segmenter.from_bundle(folder, device, dtype, batch_size=batch_size)
        state.loaded = wanted
        progress("load model", 1, 1)
    segmenter = state.segmenter
    return {
        "name": segmenter.name,
        "device": str(segmenter.device),
        "device_text": choose_device(str(segmenter.device))[1],
        "dtype": segmenter.runtime.precision,
        "structure": segmenter.structure.to_dict(),
    }


def segment(state: State, progress: Progress, volume: str, slices: list[int] | None = None) -> dict[str, Any]:
    if state.segmenter is None:
        raise SAMMixError("no model is loaded; choose a model first")
    state.scan = None  # the last one's memory is needed now
    started = time.perf_counter()
    progress("read volume", 0, 1)
    scan = Scan(state.segmenter, read_volume(volume), CACHE_BYTES)
    result = scan.segment(progress, slices)
    progress("write results", 0, 1)
    ks = range(len(result.mask)) if slices is None else slices
    cams = np.rint(result.cams.astype(np.float32) * 255).astype(np.uint8)
    written = state.write(
        "segment", mask=scan.stack.to_grid(result.mask), cam=scan.stack.maps_to_image(cams, scan.resize)
    )
    gate_high = state.segmenter.config.volume.gate_high
    state.scan = scan
    return_memory()
    progress("write results", 1, 1)
    return written | {
        "boxes": {k: scan.bounds(k) for k in range(len(result.mask)) if result.boxes[k]},
        "p_liver": _numbers(result.p_liver[ks]),
        "predicted_iou": _numbers(result.predicted_iou[ks]),
        "area_mm2": _numbers(result.area_mm2[ks]),
        "volume_ml": result.volume_ml,
        "slice_range": result.slice_range,
        "review": slices_to_review(result.p_liver, result.predicted_iou, result.area_mm2, gate_high),
        "slices_total": len(result.mask),
        "model": result.model_name,
        "device": result.device,
        "seconds": result.seconds | {"total": time.perf_counter() - started},
        "warnings": list(result.warnings),
    }


def resegment(state: State, progress: Progress, slices: list[dict[str, Any]]) -> dict[str, Any]:
    if state.scan is None:
        raise SAMMixError("no scan is held any more; segment it again first")
    result = state.scan.resegment({each["k"]: each["boxes"] for each in slices}, progress)
    mask = sitk.GetImageFromArray(result.mask.astype(np.uint8))
    return state.write("resegment", mask=mask) | {
        "slices": result.slices,
        "boxes": dict(zip(result.slices, result.boxes, strict=True)),
        "predicted_iou": _numbers(result.predicted_iou),
        "area_mm2": _numbers(result.area_mm2),
    }


def suggest(state: State, progress: Progress, labelled: list[int], count: int) -> dict[str, Any]:
    from SAMMixLib.inference.active_learning import suggest as rank

    if state.scan is None:
        raise SAMMixError("no scan is held any more; segment it again first")
    found = rank(state.scan, labelled, count)
    return {"slices": [int(k) for k, _ in found], "reasons": [reason for _, reason in found]}


def train(
    state: State,
    progress: Progress,
    slices: str,
    model: str,
    preset: str,
    seed: int,
    run: str,
    device: str = "auto",
    dtype: str = "auto",
) -> dict[str, Any]:
    from SAMMixLib.training.finetuning import FineTuning, fine_tune  # its packages are not what segmenting needs

    _drop(state)
    how = FineTuning(preset, seed, watch=state.report)
    tuned = fine_tune(slices, model, run, how, Runtime.choose(device, dtype).told(progress))
    pictures = Path(run) / PICTURES
    write_arrays(
        pictures,
        images=tuned.images,
        reference=tuned.references.astype(np.uint8),
        before=tuned.before_masks.astype(np.uint8),
        after=tuned.after_masks.astype(np.uint8),
    )
    return {
        "bundle": str(tuned.bundle),
        "before": tuned.before,
        "after": tuned.after,
        "better": tuned.better,
        "held_out": tuned.held_out,
        "pictures": str(pictures),
        "warning": tuned.warning,
        "seconds": tuned.seconds,
    }


def unload(state: State, progress: Progress) -> dict[str, Any]:
    _drop(state)
    return {}


REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {
    "load": load,
    "segment": segment,
    "resegment": resegment,
    "suggest": suggest,
    "train": train,
    "unload": unload,
}


def _drop(state: State) -> None:
    state.segmenter = state.loaded = state.scan = None
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
