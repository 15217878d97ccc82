"""Which slices of which data set, as plain data that a recipe or a protocol holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from SAMMixLib.data.readers import patients_in
from SAMMixLib.data.slices import SliceDataset, read_slices, split_patients


@dataclass(frozen=True)
class DatasetSpec:
    """A slice data set, and what to take of it; see :func:`SAMMixLib.data.slices.read_slices`.

    Args:
        path: of the data set; a relative one starts at the data root.
        hu_range: HU of 0 and 255 in uint8 images.
        middle: share of each scan's slices around its centre.
        patients: those to take, by name, or how many, drawn by the seed 0; None takes all.
        exclude: patients to leave out.
        mask_value: the value of the masks that is the structure; None takes all above 0.
        name: what a table calls the set.

    Example:
        >>> DatasetSpec("lits", middle=0.3).at(Path("/data")).path
        '/data/lits'
    """

    path: str
    hu_range: tuple[float, float] = (-40.0, 160.0)
    middle: float = 1.0
    patients: tuple[str, ...] | int | None = None
    exclude: tuple[str, ...] = ()
    mask_value: int | None = None
    name: str = ""

    @classmethod
    def from_dict(cls, data: dict) -> DatasetSpec:
        """The spec of plain JSON values.

        Raises:
            TypeError: `data` is no object, or holds an unknown entry.
        """
        return cls(**{key: _as_tuple(value) for key, value in data.items()})

    def at(self, root: Path) -> DatasetSpec:
        """The same with its path below `root`."""
        return DatasetSpec(**{**vars(self), "path": str(root / self.path)})

    def read(self, size: int, patients: Sequence[str] | None = None) -> SliceDataset:
        """The slices at `size` x `size` pixels; of given `patients` in place of the spec's own.

        Raises:
            SAMMixError: as :func:`SAMMixLib.data.slices.read_slices`.
        """
        wanted = self.patients if patients is None else tuple(patients)
        if isinstance(wanted, int):
            wanted = split_patients(patients_in(self.path), {"taken": wanted}, seed=0)["taken"]
        data = read_slices(
            self.path, size, self.hu_range, middle=self.middle, patients=wanted, mask_value=self.mask_value
        )
        return data.select(~np.isin(data.patients, self.exclude))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
