"""What one run found in one CT, and what the user corrected since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Box = tuple[int, int, int, int]


@dataclass
class Findings:
    """Slices are the k of the axial stack; boxes are inclusive pixel bounds ``(i0, j0, i1, j1)`` at full resolution."""

    slices_total: int
    cam: Path | None  # .nrrd, uint8, on its own grid; until it is in the scene
    boxes: dict[int, list[Box]]
    p_liver: dict[int, float]
    predicted_iou: dict[int, float]
    area_mm2: dict[int, float]  # of the segment as it is in the scene, the user's edits included
    slice_mm: float
    review: list[int]  # worst first
    device: str
    warnings: list[str] = field(default_factory=list)
    corrected: set[int] = field(default_factory=set)

    @classmethod
    def from_message(cls, message: dict[str, Any], slices: list[int] | None, slice_mm: float) -> Findings:
        """The worker's answer to ``segment``, where only `slices` were looked at if they are given."""
        ks = range(message["slices_total"]) if slices is None else slices
        return cls(
            slices_total=message["slices_total"],
            cam=Path(message["cam"]) if message.get("cam") else None,
            boxes=_boxes(message["boxes"]),
            p_liver=_by_slice(message["p_liver"], ks),
            predicted_iou=_by_slice(message["predicted_iou"], ks),
            area_mm2=_by_slice(message["area_mm2"], ks),
            slice_mm=slice_mm,
            review=[int(k) for k in message["review"]],
            device=message["device"],
            warnings=list(message.get("warnings", [])),
        )

    @classmethod
    def measured(cls, slices_total: int, length_mm: float) -> Findings:
        """Of a segment that no model made in this sitting: what can be measured, and nothing else."""
        return cls(slices_total, None, {}, {}, {}, {}, length_mm / slices_total, [], "")

    @property
    def by_model(self) -> bool:
        """Whether a model's figures are known, and not only what was measured."""
        return bool(self.p_liver)

    def correct(self, message: dict[str, Any]) -> None:
        """Take over the worker's answer to ``resegment``."""
        ks = [int(k) for k in message["slices"]]
        boxes = _boxes(message["boxes"])
        self.boxes |= {k: boxes.get(k, []) for k in ks}
        self.predicted_iou |= _by_slice(message["predicted_iou"], ks)
        self.area_mm2 |= _by_slice(message["area_mm2"], ks)
        self.corrected |= set(ks)
        self.review = [k for k in self.review if k not in ks]

    def keep(self, before: Findings, ks: set[int]) -> None:
        """Take over, for slices that were not written anew, what was known before."""
        for name in ("boxes", "p_liver", "predicted_iou"):
            old, new = getattr(before, name), getattr(self, name)
            new |= {k: old[k] for k in ks if k in old}
        self.corrected |= before.corrected & ks
        self.review = [k for k in self.review if k not in ks] + [k for k in before.review if k in ks]

    @property
    def volume_ml(self) -> float:
        return sum(self.area_mm2.values()) * self.slice_mm / 1000

    @property
    def slice_range(self) -> tuple[int, int] | None:
        ks = [k for k, area in self.area_mm2.items() if area > 0]
        return (min(ks), max(ks)) if ks else None

    @property
    def largest(self) -> int | None:
        """The slice with the largest cross-section; None where there is nothing."""
        return max(self.area_mm2, key=self.area_mm2.__getitem__) if self.slice_range else None

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """p(liver) and area in mm2 of every slice, float [k]; NaN where nothing was looked at."""
        p, area = np.full((2, self.slices_total), np.nan)
        for curve, values in ((p, self.p_liver), (area, self.area_mm2)):
            curve[list(values)] = list(values.values())
        return p, area


def _by_slice(values: list[float], ks: Iterable[int]) -> dict[int, float]:
    return {int(k): float(value) for k, value in zip(ks, values, strict=True)}


def _boxes(by_slice: dict) -> dict[int, list[Box]]:
    return {int(k): [tuple(box) for box in boxes] for k, boxes in by_slice.items()}
