"""Other ways to segment the same scan, each timed in a process of its own with nothing tuned, as in a plain script.

python -m SAMMixLib.inference.peers naive CT DEVICE BUNDLE SLICES [BASE_WEIGHTS]
python -m SAMMixLib.inference.peers fast CT DEVICE DTYPE
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from SAMMixLib.imaging.resize import ResizeToSquare
from SAMMixLib.imaging.volume import Volume, read_volume
from SAMMixLib.method.windowing import windowed
from SAMMixLib.models.bundle import load_bundle

FAST_SPACING = 3.0  # mm
FAST_PATCH = (112, 112, 128)  # voxels
FAST_CLASSES = 118


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


def fast_network() -> nn.Module:
    """A network of the size of TotalSegmentator's ``--fast`` model, with random weights: for its time alone."""
    from monai.networks.nets.dynunet import DynUNet

    strides = (1, 2, 2, 2, 2)
    network = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=FAST_CLASSES,
        kernel_size=[3] * len(strides),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=(32, 64, 128, 256, 320),
    )
    return network.eval()


def fast_patches(size: Sequence[int], spacing: Sequence[float]) -> int:
    """How many patches, each half over the next, cover a scan of so many voxels of this size in mm.

    >>> fast_patches((300, 512, 512), (0.5, 0.6, 0.6))
    1
    >>> fast_patches((300, 512, 512), (1.5, 0.7, 0.7))
    4
    """
    count = 1
    for voxels, mm, patch in zip(size, spacing, FAST_PATCH, strict=True):
        beyond = math.ceil(voxels * mm / FAST_SPACING) - patch
        count *= 1 + max(0, math.ceil(beyond / (patch / 2)))
    return count


@torch.inference_mode()
def time_fast(volume: Volume, device: torch.device, dtype: torch.dtype) -> float:
    """Seconds that :func:`fast_network` takes for the patches of a scan: forward alone, measured on one after one that
    warms up. Resampling, start-up and what it reads and writes come on top.
    """
    stack = volume.axial()
    network = fast_network().to(device=device, dtype=dtype)
    patch = torch.zeros(1, 1, *FAST_PATCH, device=device, dtype=dtype)
    started = 0.0
    for _ in range(2):
        started = time.perf_counter()
        network(patch).sum().item()
    return (time.perf_counter() - started) * fast_patches(stack.array.shape, stack.spacing)


def time_apart(way: str, ct: Path, device: str, *arguments: object) -> float:
    """Seconds of a way of this module, by its name, in a process of its own."""
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "SAMMixLib.inference.peers", way, str(ct), device, *map(str, arguments)]
    run = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    return float(run.stdout.splitlines()[-1])


def main(way: str, ct: str, device: str, *arguments: str) -> float:
    volume = read_volume(Path(ct))
    if way == "fast":
        return time_fast(volume, torch.device(device), getattr(torch, arguments[0]))
    bundle, sample, *base = arguments
    return time_naive(Path(bundle), volume, torch.device(device), int(sample), Path(base[0]) if base else None)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
