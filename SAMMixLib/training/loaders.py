"""Two loaders: all slices for the classification loss, the labelled ones cycling for the segmentation loss.

Both are pure functions of (seed, step). So a resumed run draws what the uninterrupted run would have drawn, and nothing
about the loaders needs to be saved.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.method.windowing import windowed
from SAMMixLib.training.augmentation import augmented, ct_augmentation
from SAMMixLib.training.scanners import imitate_scanners

CLASSIFY, SEGMENT, ACTIVATE = 1, 2, 4  # streams of random numbers, one a loader


def step_seed(seed: int, step: int, stream: int) -> int:
    """A well-mixed seed for one step of one stream of random numbers."""
    return int(np.random.SeedSequence((seed, step, stream)).generate_state(1)[0])


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The `step`-th batch of an endless series of shuffled passes over `count` items, int64 ``[batch_size]``.

    A batch may straddle two passes; a pass shows each item once.
    """
    positions = step * batch_size + np.arange(batch_size)
    shuffles = {p: np.random.default_rng((seed, p)).permutation(count) for p in np.unique(positions // count)}
    return np.array([shuffles[p // count][p % count] for p in positions])


class Batch(NamedTuple):
    """n slices to learn from."""

    slices: Tensor  # [n, 1, S, S] in 0..1
    labels: Tensor  # float [n], 1 where there is liver
    masks: Tensor  # [n, S, S]
    has_liver_mask: Tensor  # bool [n]
    features: Tensor | None = None  # [n, c, h, w], what the encoder's frozen part makes of the slices, if known


def joined(first: Batch, second: Batch) -> Batch:
    """Both batches in one."""
    slices, labels, masks, has_liver_mask = (torch.cat(pair) for pair in zip(first[:4], second[:4], strict=True))
    features = None
    if first.features is not None and second.features is not None:
        features = torch.cat([first.features, second.features])
    return Batch(slices, labels, masks, has_liver_mask, features)


class SliceBatches:
    """Windowed, perhaps augmented batches of one data set.

    Args:
        dataset: the slices to draw from.
        config: window, seed and augmentation.
        batch_size: slices in a batch.
        stream: tells the random numbers of two loaders apart.
    """

    def __init__(self, dataset: SliceDataset, config: Config, batch_size: int, stream: int) -> None:
        self.dataset = dataset
        self.model = config.model
        self.seed = config.training.seed
        self.batch_size = batch_size
        self.stream = stream
        self.augmentation = ct_augmentation() if config.training.augment else None
        self.scanners = config.training.scanners

    def __call__(self, step: int) -> Batch:
        """The batch of this step."""
        chosen = batch_indices(len(self.dataset), self.batch_size, step_seed(self.seed, 0, self.stream), step)
        hu, masks = self.dataset.images[chosen], self.dataset.masks[chosen]
        if self.scanners:
            generator = torch.Generator().manual_seed(step_seed(self.seed, step, self.stream))
            moved, of_masks = (torch.from_numpy(part.astype(np.float32)) for part in (hu, masks))
            hu, masks = (part.numpy() for part in imitate_scanners(moved, of_masks, generator, self.model.size))
        images = windowed(hu, self.model)
        if self.augmentation is not None:
            self.augmentation.set_random_state(step_seed(self.seed, step, self.stream))
            images, masks = augmented(self.augmentation, images, masks)
        labels = torch.from_numpy(self.dataset.labels[chosen].astype(np.float32))
        has_liver_mask = torch.from_numpy((self.dataset.has_mask & self.dataset.labels)[chosen])
        return Batch(images, labels, torch.as_tensor(masks), has_liver_mask)
