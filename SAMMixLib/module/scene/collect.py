"""Slices of a volume node with their masks for a training set: the ``Source`` of ``SAMMixLib.module.protocols``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import slicer

from SAMMixLib.data.training_set import patient_name_in_steps
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.edits import editedSlices
from SAMMixLib.module.scene.geometry import stackToRas, toStack
from SAMMixLib.module.scene.segments import readSegment
from SAMMixLib.structure import Structure

IN_A_STEP = 4  # slices that are hashed before the windows get their turn


class CaseSource:
    """The slices of a case, on the grid of the volume's axial stack; nothing is resampled."""

    def __init__(self, case: Case):
        self._case = case
        self.name = case.volumeNode.GetName()
        self.patient = ""
        self.total = len(self._stack())
        i, j, k = np.linalg.norm(stackToRas(case.volumeNode)[:3, :3], axis=0).tolist()
        self._spacing = (k, j, i)

    @property
    def spacing(self) -> tuple[float, float]:
        """mm (row, column)."""
        return self._spacing[1:]

    def identify(self) -> Iterator[None]:
        """Find `patient`, which takes a look at every voxel."""
        found = ""
        for n, found in enumerate(patient_name_in_steps(self.name, self._stack(), self._spacing)):  # noqa: B007
            if n % IN_A_STEP == 0:
                yield
        self.patient = found

    def images(self, ks: Sequence[int]) -> np.ndarray:
        """int16 [n, h, w] in HU."""
        return np.clip(np.rint(self._stack()[list(ks)]), -32768, 32767).astype(np.int16)

    def masks(self, ks: Sequence[int], structure: Structure) -> np.ndarray:
        """uint8 [n, h, w]: the structure's segment as it stands, zeros where there is none."""
        volume, segmentation = self._case.volumeNode, self._case.segmentationNode
        if segmentation is None:
            return np.zeros((len(ks), *self._stack().shape[1:]), np.uint8)
        return toStack(readSegment(segmentation, volume, structure), volume)[list(ks)]

    def drawn(self, structure: Structure) -> list[int]:
        """The slices in which the structure's segment holds anything."""
        segmentation, volume = self._case.segmentationNode, self._case.volumeNode
        if segmentation is None:
            return []
        return np.flatnonzero(toStack(readSegment(segmentation, volume, structure), volume).any(axis=(1, 2))).tolist()

    def edited(self, structure: Structure) -> list[int]:
        """The slices of the structure's segment that are not as the last result left them."""
        segmentation = self._case.segmentationNode
        return [] if segmentation is None else editedSlices(segmentation, self._case.volumeNode, structure)

    def provenance(self) -> dict[str, Any]:
        toRas = stackToRas(self._case.volumeNode)
        return {"volume": self.name, "slices": self.total, "stack_to_ras": toRas.round(6).tolist()}

    def _stack(self) -> np.ndarray:
        return toStack(slicer.util.arrayFromVolume(self._case.volumeNode), self._case.volumeNode)
