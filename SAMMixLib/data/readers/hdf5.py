"""The paper's HDF5 files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from SAMMixLib.data.readers.patient import PatientSlices, to_hu
from SAMMixLib.errors import SAMMixError

if TYPE_CHECKING:
    import h5py

PAPER_HU = (-3055.0, 5811.0)
"""What 0 and 1 stand for in the paper's HDF5 files: the least and the greatest HU in LiTS."""

MOST_PIXELS = 1 << 26


def read_hdf5(
    file: Path, hu_range: tuple[float, float], wanted: set[str] | None, mask_value: int | None
) -> Iterator[PatientSlices]:
    """The paper's layout; one file holds one patient. Slices stand as they are stored."""
    import h5py

    if wanted is not None and file.stem not in wanted:
        return
    try:
        with h5py.File(file) as groups:
            numbers = sorted(int(name[5:]) for name in map(str, groups) if re.fullmatch(r"Slice\d+", name))
            if not numbers:
                raise SAMMixError(f"{file}: has no group Slice0, Slice1, ...; use the paper's layout")
            slices = [cast("h5py.Group", groups[f"Slice{k}"]) for k in numbers]
            images = np.stack([_array(group, "Slice") for group in slices])
            labels = np.array([np.ravel(group.attrs["ImageLabel"])[0] > 0 for group in slices])
            outlined = all("Segmentation" in group for group in slices)
            masks = np.stack([_array(group, "Segmentation") for group in slices]) if outlined else None
            if mask_value is not None and outlined:
                masks, labels = masks == mask_value, None  # ImageLabel tells of all values
    except SAMMixError:
        raise
    except Exception as error:  # h5py raises what HDF5 finds, in many ways
        raise SAMMixError(
            f"{file}: not the paper's HDF5 layout ({error}); each group needs Slice and the attribute ImageLabel"
        ) from error
    if images.ndim != 3 or (masks is not None and masks.shape != images.shape):
        raise SAMMixError(f"{file}: Slice and Segmentation must be 2D and of one shape; write the file again")
    if images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1:
        images = PAPER_HU[0] + (PAPER_HU[1] - PAPER_HU[0]) * images.astype(np.float32)
    yield PatientSlices(file.stem, file, to_hu(images, hu_range), np.array(numbers), masks, labels)


def _array(group: h5py.Group, name: str) -> np.ndarray:
    pixels = cast("h5py.Dataset", group[name])
    if pixels.size is None or pixels.size > MOST_PIXELS:
        raise ValueError(f"{name} without pixels, or of more than {MOST_PIXELS}")
    return pixels[()]
