"""What the segmentation of one volume gives back: the mask and all that explains it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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
    boxes: list[list[tuple[int, int, int, int]]]  # one list a slice, empty where nothing was prompted
    p_liver: np.ndarray  # float32 [k], the classifier's probability of the structure; NaN where nobody looked
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
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    warnings: tuple[str, ...] = ()


@dataclass
class Resegmentation:
    """Some slices of the last segmented volume, segmented again by other boxes.

    Boxes are inclusive pixel bounds ``(i0, j0, i1, j1)`` on the slice at full resolution.
    """

    slices: list[int]  # their k in the axial stack, n of them
    mask: np.ndarray  # bool [n, j, i]
    boxes: list[list[tuple[int, int, int, int]]]  # that led to the mask
    predicted_iou: np.ndarray  # float32 [n]; 0 where there was no box
    area_mm2: np.ndarray  # float32 [n]
