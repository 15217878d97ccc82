"""Can the result be what the model segments? Doubts about a mask, from what livers are."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SAMMixLib.structure import LIVER, Structure

LIVER_ML = (300.0, 4500.0)
"""A newborn's liver weighs 120 g, an adult's 1000 to 2000; beyond 4.5 l even a greatly enlarged one is rare."""
LIVER_HU = (-20.0, 220.0)
"""Steatosis goes down to -20 HU, the portal-venous phase up to 160; iodised oil and amiodarone lie above."""
LARGEST_SHARE = 0.95  # of the mask that one component should hold
EDGE_PIXELS = 20  # of the mask on the sides of a slice that are no chance


def doubts_about(
    mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float], structure: Structure = LIVER
) -> list[str]:
    """Why a mask may be wrong, one line each; empty where nothing speaks against it.

    Args:
        mask: bool [k, j, i].
        hu: [k, j, i], the volume.
        spacing: mm along k, j, i.

    Example:
        >>> hu, mask = np.full((20, 64, 64), 60), np.zeros((20, 64, 64), bool)
        >>> mask[5:15, 10:50, 10:50] = True
        >>> doubts_about(mask, hu, (10.0, 3.0, 3.0))
        []
        >>> doubts_about(mask, hu, (1.0, 1.0, 1.0))
        ['the liver found has 16 ml, outside 300 to 4500 ml; look at the mask']
    """
    name = structure.name
    if not mask.any():
        return [f"no {name} found; check that the scan shows it and that its values are HU"]
    doubts = []
    if structure == LIVER:
        millilitres, mean = mask.sum() * np.prod(spacing) / 1000, float(hu[mask].mean())
        for value, (low, high), unit in ((millilitres, LIVER_ML, "ml"), (mean, LIVER_HU, "HU in the mean")):
            if not low <= value <= high:
                doubts.append(f"the liver found has {value:.0f} {unit}, outside {low:.0f} to {high:.0f} {unit[:2]}")
    if structure.single:
        (bounds,) = ndimage.find_objects(mask.view(np.uint8))  # labels of a whole scan would take 300 MB
        pieces, count = ndimage.label(mask[bounds])
        largest = np.bincount(pieces.ravel())[1:].max() / mask.sum()
        if count > 1 and largest < LARGEST_SHARE:
            doubts.append(f"the {name} found lies in {count} pieces, the largest of {largest:.0%}")
    sides = mask[:, [0, -1]].sum() + mask[:, :, [0, -1]].sum()
    if sides > EDGE_PIXELS:
        doubts.append(f"the {name} found touches the side of the slices: it is cut off, or the mask has run out")
    if len(mask) > 2 and (mask[0].any() or mask[-1].any()):
        end = "both ends" if mask[0].any() and mask[-1].any() else "the lower end" if mask[0].any() else "the upper end"
        doubts.append(f"the {name} found touches {end} of the scan: it may be cut off, and its volume too small")
    return [f"{doubt}; look at the mask" for doubt in doubts]
