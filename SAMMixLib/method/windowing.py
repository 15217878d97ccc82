"""The one place where HU become the model's input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from SAMMixLib.config import ModelConfig


def windowed(images: np.ndarray, config: ModelConfig) -> Tensor:
    """HU slices ``[n, S, S]`` as the model's input ``[n, 1, S, S]``: the config's window, scaled to 0..1 and clipped.

    The display window plays no part.
    """
    low = config.window_level - config.window_width / 2
    hu = torch.from_numpy(np.asarray(images, np.float32))
    return ((hu - low) / config.window_width).clamp(0, 1)[:, None]
