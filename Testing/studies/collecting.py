"""What the studies put into a training set: slices of a stored data set, some with masks, more with labels alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
from SAMMixLib.structure import LIVER, Structure

SPACING = (1.5, 1.5)  # mm, about; the slices as stored do not say it


def collect(
    data: SliceDataset, drawn: np.ndarray, labelled: np.ndarray, folder: Path, structure: Structure = LIVER
) -> None:
    """A new training set with the masks of the slices at `drawn` and the image-level labels of those at `labelled`."""
    training_set = TrainingSet.create(folder, structure)
    for patient in data.patient_names():
        for chosen, masks in ((labelled, None), (drawn, data.masks)):
            own = chosen[data.patients[chosen] == patient]
            if len(own):
                own = own[np.argsort(data.indices[own])]
                masks = None if masks is None else masks[own]
                labels, ks = data.labels[own].tolist(), data.indices[own].tolist()
                training_set.add(LabelledSlices(patient, ks, data.images[own], SPACING, labels, masks))
