"""Two loaders: all slices for the classification loss, the labelled ones cycling for the segmentation loss.

Both are pure functions of (seed, step). So a resumed run draws what the uninterrupted run would have drawn, and nothing
about the loaders needs to be saved.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from monai.data import set_track_meta
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch import Tensor

from SAMMixLib.config import Config
from SAMMixLib.scanners import imitate_scanners
from SAMMixLib.slices import SliceDataset
from SAMMixLib.windowing import windowed

BOTH = ("image", "mask")


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


def ct_augmentation() -> Compose:
    """What differs between two CT scanners and two patients on the table.

    Place, size and a slight turn; window, contrast and reconstruction kernel; noise. Nothing is mirrored: the liver is
    on the right.
    """
    set_track_meta(False)
    return Compose(
        [
            RandAffined(
                BOTH,
                prob=0.9,
                rotate_range=0.2,
                scale_range=((-0.25, 0.3), (-0.25, 0.3)),
                translate_range=24,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            RandScaleIntensityd("image", factors=0.2, prob=0.5),
            RandShiftIntensityd("image", offsets=0.12, prob=0.5),
            RandGaussianSmoothd("image", sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2), prob=0.2),
            RandGaussianNoised("image", prob=0.4, std=0.08),
        ]
    )


def augmented(transform: Compose, images: Tensor, masks: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Slices ``[n, 1, S, S]`` in 0..1 and masks ``[n, S, S]``, each pair moved alike."""
    pairs = [
        transform({"image": image, "mask": torch.as_tensor(mask)[None].float()})
        for image, mask in zip(images, masks, strict=True)
    ]
    images = torch.stack([torch.as_tensor(pair["image"]) for pair in pairs]).clamp(0, 1)
    return images, torch.stack([torch.as_tensor(pair["mask"])[0] for pair in pairs])


class Batch(NamedTuple):
    """n slices to learn from."""

    slices: Tensor  # [n, 1, S, S] in 0..1
    labels: Tensor  # float [n], 1 where there is liver
    masks: Tensor  # [n, S, S]
    has_liver_mask: Tensor  # bool [n]
    features: Tensor | None = None  # [n, c, h, w], what the encoder's frozen part makes of the slices, if known


def joined(first: Batch, second: Batch) -> Batch:
    """Both batches in one."""
    return Batch(*(None if a is None else torch.cat([a, b]) for a, b in zip(first, second, strict=True)))


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
            moved, of_masks = torch.from_numpy(hu.astype(np.float32)), torch.from_numpy(masks.astype(np.float32))
            hu, masks = (part.numpy() for part in imitate_scanners(moved, of_masks, generator, hu.shape[-1]))
        images = windowed(hu, self.model)
        if self.augmentation is not None:
            self.augmentation.set_random_state(step_seed(self.seed, step, self.stream))
            images, masks = augmented(self.augmentation, images, masks)
        labels = torch.from_numpy(self.dataset.labels[chosen].astype(np.float32))
        has_liver_mask = torch.from_numpy((self.dataset.has_mask & self.dataset.labels)[chosen])
        return Batch(images, labels, torch.as_tensor(masks), has_liver_mask)
