"""What each stage costs, in seconds and as a share of what the machine could do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from SAMMixLib.imaging.resize import ResizeToSquare
from SAMMixLib.imaging.volume import Volume, read_volume
from SAMMixLib.imaging.writing import write_mask
from SAMMixLib.inference.segmenter import Segmenter
from SAMMixLib.method.sam_mix import SAMMix
from SAMMixLib.method.windowing import windowed
from SAMMixLib.models.bundle import load_bundle
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


def encoder_gflop(model: SAMMix) -> float:
    """GFLOP of the image encoder for one slice."""
    device = next(model.parameters()).device
    one = torch.zeros(1, 1, model.config.size, model.config.size, device=device)
    # With gradients on nothing is fused: the counter does not know fused layers.
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model.backbone.encode(one)
    return counter.get_total_flops() / 1e9


def time_segmentation(segmenter: Segmenter, ct: Path, output: Path, progress: Progress = silent) -> dict:
    """From file to file: seconds of each stage and in all, slices per second, and the encoder's share of the peak."""
    started = time.perf_counter()
    volume = read_volume(ct)
    read = time.perf_counter() - started
    result = segmenter.segment(volume, progress)
    before_writing = time.perf_counter()
    write_mask(volume.axial().to_grid(result.mask), output)
    ended = time.perf_counter()
    seconds = {"read": read, **result.seconds, "write": ended - before_writing, "total": ended - started}
    prompted = sum(bool(boxes) for boxes in result.boxes)
    peak = matmul_peak(segmenter.device, segmenter.dtype)
    encoded = int((result.predicted_iou != 0).sum())  # thin slices between two encoded ones cost none
    achieved = encoder_gflop(segmenter.model) * encoded / max(seconds.get("encode", 0.0), 1e-9)
    return {
        "device": str(segmenter.device),
        "dtype": segmenter.runtime.precision,
        "slices": len(result.slices),
        "slices_with_prompt": prompted,
        "slices_encoded": encoded,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "slices_per_second": round(len(result.slices) / seconds["total"], 2),
        "matmul_peak_gflops": round(peak),
        "encoder_share_of_peak": round(achieved / peak, 3) if encoded else None,
    }


@torch.inference_mode()
def time_naive(
    bundle: Path, volume: Volume, device: torch.device, sample: int, base_weights: Path | None = None
) -> float:
    """Seconds per slice of the naive way: float32, one slice at a time, SAM on every slice, LoRA kept apart.

    Measured on `sample` slices spread evenly over the scan, after one that warms up.
    """
    model = load_bundle(bundle, base_weights).to(device)
    stack = volume.axial()
    chosen = torch.linspace(0, len(stack.array) - 1, sample + 1).round().int().tolist()
    resize = ResizeToSquare(stack.array.shape[1:], stack.spacing[1:], model.config.size)
    framed = resize.apply(stack.array[chosen])
    slices = windowed(framed, model.config).to(device)
    whole = torch.tensor([[0.0, 0.0, model.config.size, model.config.size]], device=device)
    started = 0.0
    for n, one in enumerate(slices):
        if n == 1:
            started = time.perf_counter()
        model(one[None], boxes=[whole]).mask_logits.sum().item()
    return (time.perf_counter() - started) / sample


def time_naive_apart(bundle: Path, ct: Path, device: str, sample: int, base_weights: Path | None = None) -> float:
    """:func:`time_naive` in a process of its own, with nothing tuned, as a plain script would run."""
    arguments = [bundle, ct, device, sample, *([base_weights] if base_weights else [])]
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "SAMMixLib.inference.bench", *map(str, arguments)]
    run = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    return float(run.stdout.splitlines()[-1])


def peak_memory_gb() -> float | None:
    """The most memory that this process ever held, in GB; None where the platform does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


if __name__ == "__main__":
    _bundle, _ct, _device, _sample, *_base = sys.argv[1:]
    _weights = Path(_base[0]) if _base else None
    print(time_naive(Path(_bundle), read_volume(_ct), torch.device(_device), int(_sample), _weights))
