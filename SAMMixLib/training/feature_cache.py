"""What the encoder's frozen part makes of slices, computed once and kept on disk.

That part is most of what a step costs and never changes. The price: augmentation draws from a few fixed views of each
slice instead of anew at every step.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.files import atomic
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import known
from SAMMixLib.method.windowing import windowed
from SAMMixLib.networks.sam.backbone import Backbone
from SAMMixLib.training.augmentation import augmented, ct_augmentation
from SAMMixLib.training.loaders import Batch, batch_indices, step_seed


@dataclass
class Views:
    """`count` views of the n slices of `dataset`; view v of slice i stands at ``v * n + i``."""

    dataset: SliceDataset
    count: int
    slices: Tensor  # float16 [count * n, 1, S, S] in 0..1
    masks: np.ndarray  # uint8 [count * n, S, S]
    features: np.ndarray  # float16 [count * n, c, h, w], on disk


@dataclass(frozen=True)
class FeatureCache:
    """Features of one backbone's frozen part.

    Args:
        backbone: on its device.
        folder: where the features are kept; runs on the same slices share them.
        runtime: its dtype is that of autocast.
    """

    backbone: Backbone
    folder: Path
    runtime: Runtime

    def views(self, dataset: SliceDataset, count: int, config: Config) -> Views:
        """The slices as they are, then ``count - 1`` augmented copies; the same whatever the seed."""
        transform = ct_augmentation()
        plain = windowed(dataset.images, config.model)
        slices, masks = [plain.half()], [dataset.masks]
        for view in range(1, count):
            transform.set_random_state(step_seed(0, view, 0))
            images, moved = augmented(transform, plain, dataset.masks)
            slices.append(images.half())
            masks.append(moved.numpy().astype(np.uint8))
        every = torch.cat(slices)
        return Views(dataset, count, every, np.concatenate(masks), self.features(every))

    @torch.inference_mode()
    def features(self, slices: Tensor) -> np.ndarray:
        """Of slices ``[n, 1, S, S]`` in 0..1: float16 ``[n, c, h, w]``, mapped from a file.

        The file is named by the slices, the frozen weights and the precision, so what it holds is right if it is there.
        """
        path = self.folder / f"features-{self._fingerprint(slices)}.npy"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic(path) as beside:
                self._store(slices, beside)
        return np.load(path, mmap_mode="r")

    @torch.inference_mode()
    def seconds_a_view(self, slices: Tensor) -> float:
        """Processor seconds of the frozen part for one of slices ``[n, 1, S, S]``, measured on the first few."""
        few = slices[: self.runtime.batch_size]
        self._encode(few)
        started = time.process_time()
        self._encode(few)
        return (time.process_time() - started) / len(few)

    def _store(self, slices: Tensor, path: Path) -> None:
        store, size = None, self.runtime.batch_size
        for start in range(0, len(slices), size):
            found = self._encode(slices[start : start + size])
            if store is None:
                store = np.lib.format.open_memmap(path, "w+", np.float16, (len(slices), *found.shape[1:]))
            store[start : start + size] = found
            self.runtime.progress("encode slices", min(start + size, len(slices)), len(slices))
        if store is not None:
            store.flush()

    def _encode(self, slices: Tensor) -> np.ndarray:
        with self.runtime.autocast():
            found = self.backbone.encode_frozen(slices.float().to(self.backbone.mean.device))
        return found.half().cpu().numpy()

    def _fingerprint(self, slices: Tensor) -> str:
        digest = hashlib.sha256(f"{self.backbone.name} {self.runtime.dtype}".encode())
        digest.update(np.ascontiguousarray(slices.half().numpy()))
        for name, weight in sorted(self.backbone.image_encoder.named_parameters()):
            if "lora_" not in name:  # of the part that is not frozen
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(weight.detach().float().cpu().numpy()))
        return digest.hexdigest()[:16]


class ViewBatches:
    """Batches of views, drawn as those of :class:`~SAMMixLib.training.loaders.SliceBatches`: functions of (seed, step).

    Args:
        chosen: positions in the views' data set of the slices to draw from.
    """

    def __init__(self, views: Views, chosen: np.ndarray, config: Config, batch_size: int, stream: int) -> None:
        self.views, self.chosen = views, chosen
        self.seed, self.batch_size, self.stream = config.training.seed, batch_size, stream

    def __call__(self, step: int) -> Batch:
        """The batch of this step."""
        dataset = self.views.dataset
        draw = batch_indices(len(self.chosen), self.batch_size, step_seed(self.seed, 0, self.stream), step)
        slices = self.chosen[draw]
        random = np.random.default_rng(step_seed(self.seed, step, self.stream))
        rows = random.integers(self.views.count, size=len(slices)) * len(dataset) + slices
        return Batch(
            self.views.slices[rows].float(),
            torch.from_numpy(dataset.labels[slices].astype(np.float32)),
            torch.from_numpy(self.views.masks[rows].astype(np.float32)),
            torch.from_numpy((dataset.has_mask & dataset.labels)[slices]),
            known(self.views.features, rows, torch.device("cpu")),
        )
