"""The slices of one patient, as every reader of a slice data set yields them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMMixLib.errors import SAMMixError


@dataclass
class PatientSlices:
    """The slices of one patient as a file holds them."""

    patient: str
    file: Path
    images: np.ndarray  # HU [n, rows, columns]
    indices: np.ndarray  # int [n]
    masks: np.ndarray | None = None  # [n, rows, columns], above 0 is the structure
    labels: np.ndarray | None = None  # bool [n]; None: by the masks, or by labels.csv
    spacing: tuple[float, float] | None = None  # mm (row, column)
    has_mask: np.ndarray | None = None  # bool [n]; None: every slice, or none


def to_hu(image: np.ndarray, hu_range: tuple[float, float]) -> np.ndarray:
    """uint8 stands for ``hu_range``; every other type holds HU."""
    if image.dtype != np.uint8:
        return image
    if not hu_range[0] < hu_range[1]:
        raise SAMMixError(f"the HU range {hu_range[0]:g} to {hu_range[1]:g} is empty; give the lower value first")
    return np.linspace(*hu_range, 256, dtype=np.float32)[image]


def chosen(masks: np.ndarray, mask_value: int | None) -> np.ndarray:
    return masks if mask_value is None else masks == mask_value
