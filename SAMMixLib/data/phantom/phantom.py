"""A phantom from its seed: the patient is drawn, then scanned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from SAMMixLib.data.phantom.canvas import LABELS, Canvas
from SAMMixLib.data.phantom.patient import draw_patient
from SAMMixLib.data.phantom.scanner import acquire
from SAMMixLib.errors import SAMMixError

FIELD_OF_VIEW = (372.0, 372.0, 320.0)  # mm


@dataclass(frozen=True)
class Phantom:
    """A drawn CT and its truth, all three on one grid in LPS order with identity direction."""

    ct: sitk.Image  # int16, HU
    labels: sitk.Image  # uint8, see LABELS
    liver: sitk.Image  # uint8, 0 or 1; vessels inside the liver count as liver


def make_phantom(
    seed: int = 0,
    size: tuple[int, int, int] = (256, 256, 64),
    spacing: tuple[float, float, float] | None = None,
) -> Phantom:
    """Draw patient number ``seed`` on a grid of ``size`` voxels (i to left, j to posterior, k to superior).

    ``spacing`` is in mm; by default the grid fills the field of view of 372 x 372 x 320 mm, which begins above the
    liver, in the chest, and ends below it, at the iliac bones. The same arguments give the same voxels.

    Raises:
        SAMMixError: ``size`` is not three numbers of at least 2, or ``spacing`` not three positive numbers.

    Example:
        >>> phantom = make_phantom(seed=1, size=(64, 64, 16))
        >>> phantom.ct.GetSize(), phantom.liver.GetSpacing()
        ((64, 64, 16), (5.8125, 5.8125, 20.0))
    """
    if len(size) != 3 or min(size) < 2:
        raise SAMMixError(f"phantom: size {size} is not three numbers of 2 or more; give voxels along i, j and k")
    if spacing is None:
        spacing = (FIELD_OF_VIEW[0] / size[0], FIELD_OF_VIEW[1] / size[1], FIELD_OF_VIEW[2] / size[2])
    if len(spacing) != 3 or min(spacing) <= 0:
        raise SAMMixError(f"phantom: spacing {spacing} is not three positive numbers; give mm along i, j and k")
    random = np.random.default_rng(seed)
    canvas = Canvas(size, spacing, patient_scale=random.uniform(0.97, 1.03, 3))
    draw_patient(canvas, random)
    hu = acquire(canvas, random)
    origin = [-(n - 1) / 2 * step for n, step in zip(size, spacing, strict=True)]

    def image(array: np.ndarray) -> sitk.Image:
        result = sitk.GetImageFromArray(array)
        result.SetSpacing([float(step) for step in spacing])
        result.SetOrigin(origin)
        return result

    return Phantom(image(hu), image(canvas.labels), image((canvas.labels == LABELS["liver"]).astype(np.uint8)))
