"""A few fixed views of every training slice, seen once by the encoder's frozen part.

That part is most of what a step costs and never changes, so what it makes of a slice is computed once and kept on
disk. The price: augmentation draws from so many views instead of anew at every step.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.inference.slices import known
from SAMMixLib.method.windowing import windowed
from SAMMixLib.networks.sam.backbone import Backbone
from SAMMixLib.progress import Progress, silent
from SAMMixLib.training.loaders import Batch, augmented, batch_indices, ct_augmentation, step_seed

BATCH = 8


@dataclass
class Views:
    """`count` views of n slices of S x S; view v of slice i stands at ``v * n + i``."""

    count: int
    slices: Tensor  # float16 [count * n, 1, S, S] in 0..1
    masks: np.ndarray  # uint8 [count * n, S, S]
    features: np.ndarray  # float16 [count * n, c, h, w], on disk


def make_views(
    dataset: SliceDataset,
    count: int,
    config: Config,
    backbone: Backbone,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> Views:
    """The slices as they are, then ``count - 1`` augmented copies; the same whatever the seed.

    Args:
        folder: where the features are kept; runs on the same slices share them.
        dtype: of autocast; float32 is none.
    """
    transform = ct_augmentation()
    plain = windowed(dataset.images, config.model)
    slices, masks = [plain.half()], [dataset.masks]
    for view in range(1, count):
        transform.set_random_state(step_seed(0, view, 0))
        images, moved = augmented(transform, plain, dataset.masks)
        slices.append(images.half())
        masks.append(moved.numpy().astype(np.uint8))
    every = torch.cat(slices)
    return Views(count, every, np.concatenate(masks), stored_features(backbone, every, folder, dtype, progress))


@torch.inference_mode()
def stored_features(
    backbone: Backbone, slices: Tensor, folder: Path, dtype: torch.dtype = torch.float32, progress: Progress = silent
) -> np.ndarray:
    """What the frozen part makes of slices ``[n, 1, S, S]``: float16 ``[n, c, h, w]``, mapped from a file in `folder`.

    The file is named by the slices, the frozen weights and `dtype`, so what it holds is right if it is there.
    """
    path = folder / f"features-{_fingerprint(backbone, slices, dtype)}.npy"
    if path.exists():
        return np.load(path, mmap_mode="r")
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{path.stem}-{secrets.token_hex(4)}.npy"
    store = None
    try:
        for start in range(0, len(slices), BATCH):
            found = _encode_frozen(backbone, slices[start : start + BATCH], dtype)
            if store is None:
                store = np.lib.format.open_memmap(beside, "w+", np.float16, (len(slices), *found.shape[1:]))
            store[start : start + BATCH] = found
            progress("encode slices", min(start + BATCH, len(slices)), len(slices))
        store.flush()
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


@torch.inference_mode()
def seconds_a_view(backbone: Backbone, slices: Tensor, dtype: torch.dtype = torch.float32) -> float:
    """Processor seconds that the frozen part takes for one of slices ``[n, 1, S, S]``, measured on the first few."""
    few = slices[:BATCH]
    _encode_frozen(backbone, few, dtype)
    started = time.process_time()
    _encode_frozen(backbone, few, dtype)
    return (time.process_time() - started) / len(few)


def _encode_frozen(backbone: Backbone, slices: Tensor, dtype: torch.dtype) -> np.ndarray:
    device = backbone.mean.device
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return backbone.encode_frozen(slices.float().to(device)).half().cpu().numpy()


def _fingerprint(backbone: Backbone, slices: Tensor, dtype: torch.dtype) -> str:
    digest = hashlib.sha256(f"{backbone.name} {dtype}".encode())
    digest.update(np.ascontiguousarray(slices.half().numpy()))
    for name, weight in sorted(backbone.image_encoder.named_parameters()):
        if "lora_" not in name:  # of the part that is not frozen
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(weight.detach().float().cpu().numpy()))
    return digest.hexdigest()[:16]


class ViewBatches:
    """Batches of views, drawn as those of :class:`~SAMMixLib.training.loaders.SliceBatches`: functions of (seed, step).

    Args:
        dataset: the n slices that `views` shows, with their labels.
        chosen: positions of the slices to draw from.
    """

    def __init__(
        self, dataset: SliceDataset, views: Views, chosen: np.ndarray, config: Config, batch_size: int, stream: int
    ) -> None:
        self.dataset, self.views, self.chosen = dataset, views, chosen
        self.seed, self.batch_size, self.stream = config.training.seed, batch_size, stream

    def __call__(self, step: int) -> Batch:
        """The batch of this step."""
        draw = batch_indices(len(self.chosen), self.batch_size, step_seed(self.seed, 0, self.stream), step)
        slices = self.chosen[draw]
        random = np.random.default_rng(step_seed(self.seed, step, self.stream))
        rows = random.integers(self.views.count, size=len(slices)) * len(self.dataset) + slices
        return Batch(
            self.views.slices[rows].float(),
            torch.from_numpy(self.dataset.labels[slices].astype(np.float32)),
            torch.from_numpy(self.views.masks[rows].astype(np.float32)),
            torch.from_numpy((self.dataset.has_mask & self.dataset.labels)[slices]),
            known(self.views.features, rows, torch.device("cpu")),
        )
