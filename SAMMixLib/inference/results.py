"""What the segmentation of one volume gives back: the mask and all that explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from SAMMixLib.imaging.boxes import PixelBox


@dataclass
class SegmentationResult:
    """The structure in one volume, the liver or another, with the evidence behind it.

    Axes are those of :class:`SAMMixLib.imaging.volume.AxialStack` (k to superior, j to posterior, i to left); S is
    the model's input size (256). Boxes are inclusive pixel bounds ``(i0, j0, i1, j1)`` on the S x S slice.
    """

    mask: np.ndarray  # bool [k, j, i], on the axial stack's grid
    slices: np.ndarray  # uint8 [k, S, S], the windowed slices that the model saw
    slice_masks: np.ndarray  # bool [k, S, S], the mask at the model's size
    cams: np.ndarray  # float16 [k, S, S], normalised to 0..1; zeros where the classifier saw none
    boxes: list[list[PixelBox]]  # one list a slice, empty where nothing was prompted
    # Of thin slices the classifier sees as many as leave no question. What `p_liver`, `cams` and `boxes` say of one in
    # between is interpolated between its neighbours: they are sure, and of one opinion.
    p_liver: np.ndarray  # float32 [k], the classifier's probability of the structure; NaN in a scan of chosen slices
    classified: np.ndarray  # bool [k], where the classifier looked
    prompted: np.ndarray  # bool [k], where the classifier's decision let SAM look
    threshold: float  # of p(liver): a run of neighbouring slices is prompted if one of them reaches it
    keep_threshold: float  # and each slice of the run reaches this one; both are equal where slices stand alone
    predicted_iou: np.ndarray  # float32 [k], SAM's own estimate of the mask quality; 0 where SAM did not look
    spacing: tuple[float, float, float]  # mm, (k, j, i)
    volume_ml: float
    area_mm2: np.ndarray  # float32 [k]
    mean_hu: float  # NaN where the mask is empty
    slice_range: tuple[int, int] | None  # first and last slice k with it, None where the mask is empty
    device: str = "cpu"
    dtype: str = "float32"
    model_name: str = ""
    structure: str = "liver"  # its name
    gate: str = "hysteresis"  # or "interval": the likeliest run, see SAMMixLib.inference.postprocessing
    expected_dice: np.ndarray | None = None  # float64 [k], NaN without a mask; None where the model cannot tell
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    warnings: tuple[str, ...] = ()


@dataclass
class Resegmentation:
    """Some slices of the last segmented volume, segmented again by other boxes.

    Boxes are inclusive pixel bounds ``(i0, j0, i1, j1)`` on the slice at full resolution.
    """

    slices: list[int]  # their k in the axial stack, n of them
    mask: np.ndarray  # bool [n, j, i]
    boxes: list[list[PixelBox]]  # that led to the mask
    predicted_iou: np.ndarray  # float32 [n]; 0 where there was no box
    area_mm2: np.ndarray  # float32 [n]


def measures(mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, Any]:
    """Volume, areas, mean HU and slice range of a mask [k, j, i] in a scan, as :class:`SegmentationResult` names them.

    Example:
        >>> mask = np.zeros((3, 4, 4), bool)
        >>> mask[1, :2] = True
        >>> found = measures(mask, np.full((3, 4, 4), 60), (5.0, 2.0, 2.0))
        >>> found["volume_ml"], found["slice_range"], found["mean_hu"]
        (0.16, (1, 1), 60.0)
    """
    with_liver = np.flatnonzero(mask.any(axis=(1, 2)))
    return {
        "volume_ml": float(mask.sum() * np.prod(spacing) / 1000),
        "area_mm2": areas(mask, spacing),
        "mean_hu": float(hu[mask].mean()) if len(with_liver) else float("nan"),
        "slice_range": (int(with_liver[0]), int(with_liver[-1])) if len(with_liver) else None,
    }


def areas(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """mm2 of a mask [k, j, i] in each slice, float32 [k]."""
    return (mask.sum(axis=(1, 2)) * (spacing[1] * spacing[2])).astype(np.float32)


def outer_pixels(box: Sequence[float]) -> PixelBox:
    """The pixels of the S x S slice that hold the edges of a box."""
    x0, y0, x1, y1 = box
    return PixelBox(int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)) - 1, int(np.ceil(y1)) - 1)
