"""The ticked slices of a training set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from SAMMixLib.data.readers.patient import PatientSlices
from SAMMixLib.data.training_set import TrainingSet
from SAMMixLib.errors import SAMMixError


def read_training_set(folder: Path, wanted: set[str] | None) -> Iterator[PatientSlices]:
    training_set = TrainingSet.open(folder)
    entries = [entry for entry in training_set.entries() if entry.active]
    if not entries:
        raise SAMMixError(f"{folder}: the training set has no ticked slices; collect some first")
    for patient, group in groupby(entries, key=lambda entry: entry.patient):
        if wanted is None or patient in wanted:
            own = list(group)
            images, masks = (np.stack(arrays) for arrays in zip(*map(training_set.load, own), strict=True))
            yield PatientSlices(
                patient,
                own[0].file,
                images,
                np.array([entry.slice for entry in own]),
                masks,
                np.array([entry.label for entry in own]),
                own[0].spacing,
                np.array([entry.has_mask for entry in own]),
            )
