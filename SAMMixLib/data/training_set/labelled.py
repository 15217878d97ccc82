"""What goes into a training set: slices of one scan, with what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.hounsfield import AIR


@dataclass(frozen=True)
class LabelledSlices:
    """Slices of one scan, each with an image-level label, and all with a mask or none.

    Attributes:
        patient: which scan, see :func:`patient_name`.
        slices: [n] k of the axial stack.
        images: [n, h, w] in HU; kept as int16.
        spacing: mm (row, column).
        labels: [n], whether the structure is in the slice.
        masks: [n, h, w], the structure where not 0; kept as 0 and 1.
        provenance: where they come from; anything that JSON can hold.

    Example:
        >>> stack = read_volume("scan.nii.gz").axial()
        >>> LabelledSlices("patient-1", [3, 4], stack.array[[3, 4]], stack.spacing[1:], labels=[False, True]).slices
        [3, 4]
    """

    patient: str
    slices: Sequence[int] | np.ndarray
    images: np.ndarray
    spacing: Sequence[float]
    labels: Sequence[bool] | np.ndarray
    masks: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file of slices holds, of one length and type.

        Raises:
            SAMMixError: shapes, labels and masks do not fit each other.
        """
        patient, slices, spacing = self.patient, self.slices, self.spacing
        images, labels = np.asarray(self.images), np.asarray(self.labels, bool)
        n = len(slices)
        if n == 0:
            raise SAMMixError(f"{patient}: no slices to add; choose some first")
        if images.ndim != 3 or len(images) != n or labels.shape != (n,):
            raise SAMMixError(f"{patient}: {n} slices, but images {images.shape} and labels {labels.shape}")
        if len(set(map(int, slices))) < n:
            raise SAMMixError(f"{patient}: a slice is given twice")
        if len(spacing) != 2 or not all(0 < side < np.inf for side in spacing):
            raise SAMMixError(f"{patient}: the spacing is {spacing} mm; give (row, column) above 0")
        if not np.isfinite(images).all():
            raise SAMMixError(f"{patient}: the image holds NaN or infinity; repair it first")
        arrays = {"image": _as_int16(images), "slice": np.asarray(slices, np.int64), "label": labels}
        if self.masks is not None:
            if np.shape(self.masks) != images.shape:
                raise SAMMixError(f"{patient}: the masks are {np.shape(self.masks)}, the images {images.shape}")
            arrays["mask"] = (np.asarray(self.masks) != 0).astype(np.uint8)
            wrong = np.flatnonzero(arrays["mask"].any((1, 2)) != labels)
            if wrong.size:
                says = "holds the structure but its mask is empty" if labels[wrong[0]] else "is without, but has a mask"
                raise SAMMixError(f"{patient}: slice {slices[wrong[0]]} {says}; correct the mask or the label")
        return arrays | {"patient": np.array(patient), "spacing": np.array(spacing, float)}


def patient_name(name: str, array: np.ndarray, spacing: Sequence[float]) -> str:
    """``name`` with a short hash of the scan, so that no two scans of one name mix and the same scan is known again.

    Args:
        array: the axial stack [k, j, i] in HU.
        spacing: (k, j, i) in mm.

    >>> patient_name("abdomen", np.zeros((2, 4, 4), np.int16), (5.0, 0.8, 0.8))
    'abdomen-a74b4d4a'
    """
    *_, found = patient_name_in_steps(name, array, spacing)
    return found


def patient_name_in_steps(name: str, array: np.ndarray, spacing: Sequence[float]) -> Iterator[str]:
    """As :func:`patient_name`, a slice a step; only the last that comes is the name."""
    digest = hashlib.sha256(repr((array.shape, [f"{side:.3f}" for side in spacing])).encode())
    for plane in array:
        digest.update(np.maximum(_as_int16(plane), AIR).astype("<i2").tobytes())
        yield f"{name}-{digest.hexdigest()[:8]}"


def _as_int16(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.int16:
        return array
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(array), limits.min, limits.max).astype(np.int16)
