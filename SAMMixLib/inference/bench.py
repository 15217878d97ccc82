"""What each stage costs, in seconds and as a share of what the machine could do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk
import torch
from torch.utils.flop_counter import FlopCounterMode

from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.imaging.writing import write_mask
from SAMMixLib.inference.segmenter import Segmenter
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.progress import Progress, silent


def matmul_peak(device: torch.device, dtype: torch.dtype, side: int = 2048, repeats: int = 8) -> float:
    """The measured ceiling: GFLOP/s of a square matrix product, the best of some repeats."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        c = a @ b
        _ = c[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best / 1e9


def gflop(work: Callable[[], object]) -> float:
    """GFLOP of what a network does."""
    # With gradients on nothing is fused: the counter does not know fused layers.
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        work()
    return counter.get_total_flops() / 1e9


def stage_gflop(model: SAMMix) -> dict[str, float]:
    """GFLOP of each stage's network for one slice, with one box."""
    size, device = model.config.size, next(model.parameters()).device
    one = torch.zeros(1, 1, size, size, device=device)
    box = [torch.tensor([[0.0, 0.0, size, size]], device=device)]
    frozen = model.encode_frozen(one) if model.shares_encoder else None
    embedded = model.embed(one, frozen).detach()
    return {
        "classify": gflop(lambda: model.classify(one, frozen)),
        "encode": gflop(lambda: model.backbone.encode(one)),
        "decode": gflop(lambda: model.decode(embedded, box)),
    }


def time_segmentation(segmenter: Segmenter, ct: Path, output: Path, progress: Progress = silent) -> dict:
    """From file to file: seconds of each stage and in all, slices per second, joules where the machine tells them, and
    each network's share of the peak of matrix products.
    """
    energy = joules()
    started = time.perf_counter()
    volume = read_volume(ct)
    read = time.perf_counter() - started
    result = segmenter.segment(volume, progress)
    before_writing = time.perf_counter()
    write_mask(volume.axial().to_grid(result.mask), output)
    ended = time.perf_counter()
    used = joules()
    seconds = {"read": read, **result.seconds, "write": ended - before_writing, "total": ended - started}
    prompted = sum(bool(boxes) for boxes in result.boxes)
    peak = matmul_peak(segmenter.device, segmenter.dtype)
    encoded = int((result.predicted_iou != 0).sum())  # thin slices between two encoded ones cost none
    looked = {"classify": int(result.classified.sum()), "encode": encoded, "decode": encoded}
    work = {stage: each * looked[stage] for stage, each in stage_gflop(segmenter.model).items()}
    return {
        "device": str(segmenter.device),
        "dtype": segmenter.runtime.precision,
        "slices": len(result.slices),
        "slices_with_prompt": prompted,
        "slices_of_stage": looked,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "slices_per_second": round(len(result.slices) / seconds["total"], 2),
        "joules": None if energy is None or used is None else round(used - energy, 1),
        "matmul_peak_gflops": round(peak),
        "gflop": {stage: round(value, 1) for stage, value in work.items()},
        "share_of_peak": {
            stage: round(value / seconds[stage] / peak, 3) for stage, value in work.items() if seconds.get(stage)
        },
    }


def in_slices(ct: Path, count: int, output: Path) -> Path:
    """The scan resampled linearly to `count` slices of the same extent, as a file; gives back `output`."""
    image = sitk.DICOMOrient(read_volume(ct).image, "LPS")
    columns, rows, slices = image.GetSize()
    *in_plane, between = image.GetSpacing()
    target = sitk.Image(columns, rows, count, sitk.sitkInt16)
    target.SetOrigin(image.GetOrigin())
    target.SetDirection(image.GetDirection())
    target.SetSpacing((*in_plane, between * (slices - 1) / max(1, count - 1)))
    sitk.WriteImage(sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, -1024, sitk.sitkInt16), str(output))
    return output


def joules() -> float | None:
    """What the processor has used so far, by its own counters; None where they cannot be read."""
    try:
        counters = [int(file.read_text()) for file in Path("/sys/class/powercap").glob("intel-rapl:?/energy_uj")]
    except OSError:
        return None
    return sum(counters) / 1e6 if counters else None


def peak_memory_gb() -> float | None:
    """The most memory that this process ever held, in GB; None where the platform does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)
