"""How well a mask fits its reference: overlap, surface distances, size.

Surfaces follow the CHAOS challenge: the mask's voxels with a face neighbour outside it. A face on the border of the
array is no surface, for there the scan ends and not the liver. Distances are Euclidean, from MONAI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan

import numpy as np
from scipy import ndimage

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.overlap import dice

SCORED, BOTH_EMPTY, MISSED, FALSE_ALARM = "scored", "both empty", "missed", "false alarm"


@dataclass(frozen=True)
class MaskScores:
    """A mask against its reference. NaN stands for what is not defined.

    ``case`` says which masks are empty: "scored" (neither), "both empty" (nothing is defined; leave it out of means),
    "missed" (the prediction alone is empty) and "false alarm" (the reference alone is empty). In the last two, Dice and
    IoU are 0 and the distances are not defined.
    """

    case: str
    voxels: int  # of the prediction
    reference_voxels: int
    dice: float = nan
    iou: float = nan
    hd_mm: float = nan  # symmetric Hausdorff distance (CHAOS: MSSD)
    hd95_mm: float = nan  # the greater of the two directed 95th percentiles
    assd_mm: float = nan  # mean over the voxels of both surfaces together
    hd_px: float = nan  # the same in pixels of the slice at 256 x 256
    hd95_px: float = nan
    assd_px: float = nan
    size_error_percent: float = nan  # 100 (prediction - reference) / reference; its absolute value is CHAOS' RAVD


def score_overlap(prediction: np.ndarray, reference: np.ndarray) -> MaskScores:
    """Everything but the distances, for masks of one shape, bool or 0 and 1.

    Raises :class:`SAMMixError` where the shapes differ.
    """
    prediction, reference = np.asarray(prediction) > 0, np.asarray(reference) > 0
    if prediction.shape != reference.shape:
        raise SAMMixError(
            f"a mask of {prediction.shape} cannot be scored against one of {reference.shape}; bring both to one grid"
        )
    voxels, expected = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    if not voxels and not expected:
        return MaskScores(BOTH_EMPTY, 0, 0)
    common = int(np.count_nonzero(prediction & reference))
    return MaskScores(
        FALSE_ALARM if not expected else MISSED if not voxels else SCORED,
        voxels,
        expected,
        dice=float(dice(prediction, reference)),
        iou=common / (voxels + expected - common),
        size_error_percent=100 * (voxels - expected) / expected if expected else nan,
    )


def mean_dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Mean Dice per slice over the slices where either mask holds liver: a miss and a false alarm both count 0.

    Args:
        predicted, reference: [n, S, S], not 0 is liver.

    Example:
        >>> one, none = np.ones((1, 2, 2)), np.zeros((1, 2, 2))
        >>> mean_dice(np.concatenate([one, one, none]), np.concatenate([one, none, none]))
        0.5
    """
    per_slice = dice(predicted, reference, axes=(1, 2))
    counted = per_slice[~np.isnan(per_slice)]
    return float(counted.mean()) if counted.size else nan


def score_masks(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...] | None = None, pixel: float = 1.0
) -> MaskScores:
    """Score a slice [rows, columns] or a volume [k, j, i], bool or 0 and 1, with the distances of the surfaces.

    ``spacing`` is in mm, one value an axis; without it the voxels are square and everything in mm stays NaN.
    ``pixel`` is the side of a pixel of the slice at 256 x 256, in mm, or in voxels where there is no spacing.
    Raises :class:`SAMMixError` where the shapes differ.
    """
    overlap = score_overlap(prediction, reference)
    if overlap.case != SCORED:
        return overlap
    distances = surface_distances(
        np.asarray(prediction) > 0, np.asarray(reference) > 0, spacing or (1.0,) * np.ndim(reference)
    )
    hd = float(max(directed.max() for directed in distances))
    hd95 = float(max(np.percentile(directed, 95) for directed in distances))
    assd = float(np.concatenate(distances).mean(dtype=float))
    overlap = replace(overlap, hd_px=hd / pixel, hd95_px=hd95 / pixel, assd_px=assd / pixel)
    return replace(overlap, hd_mm=hd, hd95_mm=hd95, assd_mm=assd) if spacing else overlap


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """From each surface voxel of one mask (bool, not empty) to the other's surface, both ways, in units of spacing.

    MONAI's own edges would count the border of the array as surface (CHAOS pair: ASSD 0.713 mm in place of 0.734).
    """
    from monai.metrics.utils import get_surface_distance

    box = _bounds(prediction | reference)
    one, other = _surface(prediction[box]), _surface(reference[box])
    steps = [float(step) for step in spacing]
    to_reference = get_surface_distance(one, other, spacing=steps)
    return np.asarray(to_reference), np.asarray(get_surface_distance(other, one, spacing=steps))


def _surface(mask: np.ndarray) -> np.ndarray:
    """The voxels with a face neighbour outside the mask; all of a mask that fills its array, to have some."""
    surface = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return surface if surface.any() else mask


def _bounds(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around the mask, one voxel larger where the array goes on."""
    lines = [np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
    return tuple(slice(max(line[0] - 1, 0), line[-1] + 2) for line in lines)
