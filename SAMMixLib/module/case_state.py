"""What is known of a segment: what a run found in one CT, what the user corrected since, and what it holds now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from SAMMixLib.worker.protocol import Box, Resegmented, Segmented


@dataclass
class Findings:
    """Slices are the k of the axial stack; boxes are inclusive pixel bounds ``(i0, j0, i1, j1)`` at full resolution.

    Of a segment that no model made in this sitting, one that was drawn or loaded, only the areas are known.
    """

    slices_total: int
    slice_mm: float
    cam: Path | None = None  # .nrrd, uint8, on its own grid; until it is in the scene
    cam_slices: list[int] | None = None  # that it was made for; None for all
    boxes: dict[int, list[Box]] = field(default_factory=dict)
    p_liver: dict[int, float] = field(default_factory=dict)
    predicted_iou: dict[int, float] = field(default_factory=dict)
    area_mm2: dict[int, float] = field(default_factory=dict)  # of the segment as it is, the user's edits included
    review: list[int] = field(default_factory=list)  # worst first
    device: str = ""
    warnings: list[str] = field(default_factory=list)  # of the worker: what speaks against the scan, or the result
    corrected: set[int] = field(default_factory=set)  # slices that are not as the last result left them

    @classmethod
    def from_answer(cls, answer: Segmented, slices: list[int] | None, slice_mm: float) -> Findings:
        """The worker's answer, where only `slices` were looked at if they are given."""
        ks = range(answer.slices_total) if slices is None else slices
        return cls(
            slices_total=answer.slices_total,
            slice_mm=slice_mm,
            cam=Path(answer.cam) if answer.cam else None,
            cam_slices=slices,
            boxes=dict(answer.boxes),
            p_liver=_by_slice(answer.p_liver, ks),
            predicted_iou=_by_slice(answer.predicted_iou, ks),
            area_mm2=_by_slice(answer.area_mm2, ks),
            review=list(answer.review),
            device=answer.device,
            warnings=list(answer.warnings),
        )

    @classmethod
    def measured(cls, slices_total: int, length_mm: float) -> Findings:
        """Of a segment that no model made in this sitting: what can be measured, and nothing else."""
        return cls(slices_total, length_mm / slices_total)

    @property
    def by_model(self) -> bool:
        """Whether a model's figures are known, and not only what was measured."""
        return bool(self.p_liver)

    def correct(self, answer: Resegmented) -> None:
        """Take over the worker's answer to a correction."""
        ks = answer.slices
        self.boxes |= answer.boxes
        self.predicted_iou |= _by_slice(answer.predicted_iou, ks)
        self.area_mm2 |= _by_slice(answer.area_mm2, ks)
        self.review = [k for k in self.review if k not in ks]

    def keep(self, before: Findings, ks: set[int]) -> None:
        """Take over, for slices that were not written anew, what was known before."""
        for name in ("boxes", "p_liver", "predicted_iou"):
            old, new = getattr(before, name), getattr(self, name)
            new |= {k: old[k] for k in ks if k in old}
        self.review = [k for k in self.review if k not in ks] + [k for k in before.review if k in ks]
        if self.cam_slices is not None:  # what was said of the whole scan holds on
            self.warnings = list(dict.fromkeys([*before.warnings, *self.warnings]))

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
        """Liver probability and area in mm2 of every slice, float [k]; NaN where nothing was looked at."""
        p, area = np.full((2, self.slices_total), np.nan)
        for curve, values in ((p, self.p_liver), (area, self.area_mm2)):
            curve[list(values)] = list(values.values())
        return p, area


def _by_slice(values: list[float], ks: Iterable[int]) -> dict[int, float]:
    return {int(k): float(value) for k, value in zip(ks, values, strict=True)}
