"""The slices of a training run: what it learns from, what it is scored on, and which masks count."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from SAMMixLib.data.slices import SliceDataset, choose_labelled
from SAMMixLib.errors import SAMMixError


@dataclass(frozen=True)
class TrainingData:
    """Slices to learn from and slices to score on.

    Args:
        train: slices to learn from; only the masks of `labelled` are seen.
        validation: slices of other patients.
        labelled: positions in `train` of the slices whose masks count; drawn by the seed when None, see
            :meth:`with_labelled`.
        same_patients: the validation slices come from the training patients, as a user's own scans do. They tell what
            changes there, not how good a model is on others.
    """

    train: SliceDataset
    validation: SliceDataset
    labelled: np.ndarray | None = None
    same_patients: bool = False

    def check(self) -> None:
        """Say what is wrong before anything starts.

        Raises:
            SAMMixError: see :func:`check_training_sets` and :func:`check_split`.
        """
        check_training_sets(self.train, self.validation)
        if not self.same_patients:
            check_split(self.train, self.validation)

    def with_labelled(self, count: int | None, seed: int) -> TrainingData:
        """The same with `labelled`, `count` of them (None: all) drawn by `seed` where they are not given.

        Raises:
            SAMMixError: there are fewer.
        """
        labelled = self.labelled
        if labelled is None:
            every = int((self.train.has_mask & self.train.labels).sum())
            labelled = choose_labelled(self.train, every if count is None else count, seed)
        seen = replace(self.train, has_mask=np.isin(np.arange(len(self.train)), labelled))
        return replace(self, train=seen, labelled=labelled)


def check_training_sets(train: SliceDataset, validation: SliceDataset) -> None:
    """Say what is wrong with the data before anything starts.

    Raises:
        SAMMixError: a set is empty, or lacks slices with or without liver or with a mask.
    """
    for name, data in (("training", train), ("validation", validation)):
        if not data.labels.any():
            raise SAMMixError(f"the {name} set has no slice with liver; add scans that show the liver")
        if not (data.labels & data.has_mask).any():
            raise SAMMixError(f"the {name} set has no liver mask; add at least one slice with a mask")
    if train.labels.all():
        raise SAMMixError("the training set has no slice without liver; add slices above or below the liver")


def check_split(train: SliceDataset, validation: SliceDataset) -> None:
    """Scores mean something for new patients only if no patient is on both sides.

    Raises:
        SAMMixError: one is.
    """
    shared = sorted(set(train.patients) & set(validation.patients))
    if shared:
        raise SAMMixError(f"patient {shared[0]} is in the training and in the validation set; split by patient")


def balanced(labels: np.ndarray) -> np.ndarray:
    """Positions of all slices, those of the rarer label as often as the others: a user marks few without liver."""
    with_liver, without = np.flatnonzero(labels), np.flatnonzero(~labels)
    count = max(len(with_liver), len(without))
    return np.concatenate([np.resize(with_liver, count), np.resize(without, count)])
