"""Slices in ``.npz`` files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from SAMMixLib.data.readers.patient import PatientSlices, chosen, to_hu
from SAMMixLib.errors import SAMMixError


def read_npz(
    file: Path, hu_range: tuple[float, float], wanted: set[str] | None, mask_value: int | None
) -> Iterator[PatientSlices]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            data = {key: arrays[key] for key in ("image", "mask", "slice", "patient", "annotator") if key in arrays}
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise SAMMixError(f"{file}: cannot be read as .npz ({error}); write it again") from error
    for key in ("image", "slice"):
        if key not in data:
            raise SAMMixError(f"{file}: has no array '{key}'; a slice file needs image, slice and, for masks, mask")
    image = data["image"]
    n = len(data["slice"])
    if image.ndim != 3 or len(image) != n or ("mask" in data and data["mask"].shape != image.shape):
        shapes = ", ".join(f"{key} {array.shape}" for key, array in data.items())
        raise SAMMixError(f"{file}: shapes do not fit ({shapes}); image and mask must be [n, h, w], slice [n]")
    patient = data["patient"].astype(str) if "patient" in data else np.full(n, file.stem)
    first = _first_annotators(patient, data["slice"], data["annotator"]) if "annotator" in data else np.full(n, True)
    for name in dict.fromkeys(patient.tolist()):
        if wanted is None or name in wanted:
            own = np.flatnonzero(first & (patient == name))
            yield PatientSlices(
                name,
                file,
                to_hu(image[own], hu_range),
                data["slice"][own],
                chosen(data["mask"][own], mask_value) if "mask" in data else None,
            )


def _first_annotators(patient: np.ndarray, index: np.ndarray, annotator: np.ndarray) -> np.ndarray:
    """Where a slice was outlined by several people, true for the lowest annotator's row only."""
    lowest: dict[tuple, int] = {}
    for row in np.argsort(annotator, kind="stable"):
        lowest.setdefault((patient[row], index[row]), row)
    first = np.zeros(len(patient), bool)
    first[list(lowest.values())] = True
    return first
