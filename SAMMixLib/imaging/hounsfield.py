"""Are the values of a volume those of a CT in HU?

Inside a body CT knows few values: air near -1000, fat near -100, soft tissue from 0 to 200, little bone. How well a
histogram fits these peaks is a likelihood. Each error that files are known to have (an offset left out or taken twice,
a scale inverted or doubled) is tried as a repair; where a repair fits clearly better than the values as they are, they
are no HU, and the repair is named.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.itk import image_like

AIR = -1024
"""HU; what surrounds a slice that is not square. Scanners pad their field of view with anything down to -3024."""

PEAKS = (  # HU, standard deviation, share of a trunk's voxels
    (-1000.0, 45.0, 0.35), (-850.0, 90.0, 0.10), (-100.0, 35.0, 0.20), (45.0, 40.0, 0.25), (120.0, 60.0, 0.08),
)  # fmt: skip
REST = 1e-6  # density per HU of everything else: bone, contrast, metal
REPAIRS = {  # how the values seem to have come about: slope, intercept of the way back to HU
    "HU + 1024: subtract 1024": (1.0, -1024.0),
    "HU + 1000: subtract 1000": (1.0, -1000.0),
    "HU - 1024, the intercept applied twice: add 1024": (1.0, 1024.0),
    "HU - 1000, the intercept applied twice: add 1000": (1.0, 1000.0),
    "inverted: change the sign": (-1.0, 0.0),
    "inverted before the intercept: change the sign and subtract 1024": (-1.0, -1024.0),
    "doubled: halve them": (0.5, 0.0),
    "doubled before the intercept: halve (value + 1024) and subtract 1024": (0.5, -512.0),
    "halved: double them": (2.0, 0.0),
    "halved before the intercept: double (value + 1024) and subtract 1024": (2.0, 1024.0),
    "a tenth of HU: multiply by 10": (10.0, 0.0),
    "ten times HU: divide by 10": (0.1, 0.0),
}
LEAST_TISSUE = 0.01  # of the voxels
CLEARLY = 1.0  # nats a voxel by which a repair must fit better
TOO_FEW = 20_000  # voxels of which a histogram says nothing
SAMPLE = 400_000  # voxels
PADDING_GAP = 100  # HU between a padding value and the lowest other value


def in_hu(path: Path, image: sitk.Image) -> tuple[sitk.Image, list[str]]:
    """Fill what is not a number, cut padding at -1024 HU, and judge whether the values can be those of a CT.

    Raises:
        SAMMixError: the values are all the same, or span less than 50.
    """
    array, warnings = sitk.GetArrayViewFromImage(image), []
    changed = False
    if array.dtype.kind == "f" and (broken := ~np.isfinite(array)).any():
        array, changed = np.where(broken, array.dtype.type(AIR), array), True
        warnings.append(f"{path}: {np.count_nonzero(broken)} voxels are NaN or infinite; they count as air ({AIR} HU)")
    lowest, highest = array.min().item(), array.max().item()  # Python numbers: int16 ones would overflow below
    if lowest == highest:
        raise SAMMixError(f"{path}: every voxel is {lowest:g}; this is not a CT")
    if highest - lowest < 50:
        raise SAMMixError(f"{path}: the values span only {lowest:g} to {highest:g}; a mask or a scaled image, not HU")
    doubt = doubt_in_values(array)
    if doubt:
        warnings.append(f"{path}: {doubt}")
    if lowest < AIR:
        array, changed = np.maximum(array, array.dtype.type(AIR)), True
    return image_like(array, image) if changed else image, warnings


def doubt_in_values(array: np.ndarray) -> str:
    """Why these voxels seem to be no HU, with the likely repair where there is one; empty where they seem to be.

    Example:
        >>> random = np.random.default_rng(0)
        >>> hu = np.concatenate([random.normal(centre, 15, 30_000) for centre in (-1000, -100, 50)])
        >>> doubt_in_values(hu)
        ''
        >>> "subtract 1024" in doubt_in_values(hu + 1024)
        True
    """
    lowest, highest = array.min().item(), array.max().item()
    sample = array.reshape(-1)[:: max(1, array.size // SAMPLE)].astype(np.float64)
    if sample.size >= TOO_FEW:
        sample = _without_padding(sample)
        own = _fit(sample, 1.0, 0.0)
        fits = {name: _fit(sample, *repair) for name, repair in REPAIRS.items()}
        best = max(fits, key=fits.__getitem__)
        if fits[best] > own + CLEARLY:
            return (
                f"its values of {lowest:g} to {highest:g} are no HU by their histogram: perhaps no CT, "
                f"or {best}; as they are, the mask means nothing"
            )
        if np.count_nonzero((sample > -200) & (sample < 300)) < LEAST_TISSUE * sample.size:
            return f"nearly no soft tissue (-200 to 300) among its values of {lowest:g} to {highest:g}; they are no HU"
    if np.count_nonzero((sample > -1100) & (sample < -200)) < 0.001 * sample.size:
        return (
            f"no air among its values of {lowest:g} to {highest:g}; unless it is cut to the body, it is no CT "
            "in HU (an MR, or without its offset of -1024), and the mask means nothing"
        )
    return ""


def _fit(values: np.ndarray, slope: float, intercept: float) -> float:
    """Mean log likelihood of values, were ``slope * value + intercept`` HU as in :data:`PEAKS`."""
    hu = slope * values + intercept
    density = np.full(len(hu), REST)
    for centre, deviation, share in PEAKS:
        z = (hu - centre) / deviation
        density += share / (deviation * np.sqrt(2 * np.pi)) * np.exp(-0.5 * z * z)
    return float(np.log(density).mean() + np.log(abs(slope)))


def _without_padding(values: np.ndarray) -> np.ndarray:
    """The values but for one that stands alone at the low or the high end: what a program filled a border with."""
    for end, sign in ((values.min(), 1), (values.max(), -1)):
        others = values[values != end]
        if others.size and (others * sign).min() - end * sign > PADDING_GAP:
            values = others
    return values
