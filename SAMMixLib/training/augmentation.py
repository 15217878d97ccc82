"""What differs between two CT scanners, and between two patients on the table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

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

BOTH = ("image", "mask")


def ct_augmentation() -> Compose:
    """Place, size and a slight turn; window, contrast and reconstruction kernel; noise.

    Nothing is mirrored: the liver is on the right.
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
        cast("dict[str, Tensor]", transform({"image": image, "mask": torch.as_tensor(mask)[None].float()}))
        for image, mask in zip(images, masks, strict=True)
    ]
    images = torch.stack([torch.as_tensor(pair["image"]) for pair in pairs]).clamp(0, 1)
    return images, torch.stack([torch.as_tensor(pair["mask"])[0] for pair in pairs])
