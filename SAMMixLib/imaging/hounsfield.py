"""Are the values of a volume those of a CT in HU?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.itk import image_like

AIR = -1024
"""HU; what surrounds a slice that is not square. Scanners pad their field of view with anything down to -3024."""


def in_hu(path: Path, image: sitk.Image) -> tuple[sitk.Image, list[str]]:
    """Fill what is not a number, cut padding at -1024 HU, and judge whether the values can be those of a CT."""
    array, warnings = sitk.GetArrayViewFromImage(image), []
    if array.dtype.kind == "f" and (broken := ~np.isfinite(array)).any():
        array = np.where(broken, array.dtype.type(AIR), array)
        warnings.append(f"{path}: {np.count_nonzero(broken)} voxels are NaN or infinite; they count as air ({AIR} HU)")
    lowest, highest = array.min().item(), array.max().item()  # Python numbers: int16 ones would overflow below
    if lowest == highest:
        raise SAMMixError(f"{path}: every voxel is {lowest:g}; this is not a CT")
    if highest - lowest < 50:
        raise SAMMixError(f"{path}: the values span only {lowest:g} to {highest:g}; a mask or a scaled image, not HU")
    in_air = np.count_nonzero((array > -1100) & (array < -200)) / array.size
    if in_air < 0.001:
        warnings.append(
            f"{path}: no air among its values of {lowest:g} to {highest:g}; unless it is cut to the body, it is no CT "
            "in HU (an MR, or without its offset of -1024), and the mask means nothing"
        )
    if lowest < AIR:
        array = np.maximum(array, array.dtype.type(AIR))
    return (image, warnings) if lowest >= AIR and not warnings else (image_like(array, image), warnings)
