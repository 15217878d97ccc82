"""Cross-validation by patient: every patient is scored by a model that never saw them.

Of a fold's patients nothing is used but the score: the best epoch and the prompt threshold are chosen on the patients
of the next fold, whom this fold's model does not learn from either. A folder holds one run for each fold and what it
said of the fold's patients, so a killed cross-validation goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.quality import SIGNS, QualityModel, fit_quality, signs_of_doubt
from SAMMixLib.inference.results import outer_pixels
from SAMMixLib.inference.slices import SlicePredictions, SlicePredictor
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.models.card import open_bundle
from SAMMixLib.process import return_memory
from SAMMixLib.training.recipe import Recipe
from SAMMixLib.training.sets import TrainingData
from SAMMixLib.training.trainer import Trainer, new_model

PREDICTIONS = "predictions.npz"
FEWEST = 3  # one fold to score, one to validate on, one to learn from


@dataclass(frozen=True)
class CrossValidation:
    """A recipe, trained once for each fold.

    Args:
        recipe: its own validation patients and its list of labelled slices play no part.
        folds: how many.
        base_weights: the file of a ViT backbone's public weights.
        say: is told of each validation.
    """

    recipe: Recipe
    folds: int = 5
    base_weights: Path | None = None
    say: Callable[[str], None] = lambda line: None

    def __call__(self, folder: str | Path, runtime: Runtime = Runtime()) -> OutOfFold:
        """Train the models, and let each segment the patients that it never saw, with nothing but the image.

        Raises:
            SAMMixError: as :func:`patient_folds` and :class:`~SAMMixLib.training.trainer.Trainer`; or the folder
                belongs to another recipe or to other folds.
        """
        recipe, folder = self.recipe, Path(folder)
        recipe.claim(folder)
        data = recipe.read_all()
        fold_of = patient_folds(data.patient_names(), self.folds, recipe.config.training.seed, same=recipe.same)
        folds = np.array([fold_of[name] for name in data.patients])
        known, parts = data.has_mask | ~data.labels, []
        for fold in range(self.folds):
            path, scored = folder / f"fold-{fold}" / PREDICTIONS, data.select((folds == fold) & known)
            if not path.is_file():
                inner = (fold + 1) % self.folds
                sets = TrainingData(data.select((folds != fold) & (folds != inner)), data.select(folds == inner))
                OutOfFold.of(scored, self._predicted(sets, scored, path.parent, runtime), fold).save(path)
                return_memory()
            parts.append(OutOfFold.load(path, scored, fold))
        return OutOfFold.joined(parts)

    def _predicted(self, sets: TrainingData, scored: SliceDataset, run: Path, runtime: Runtime) -> SlicePredictions:
        run.mkdir(parents=True, exist_ok=True)
        config = self.recipe.config
        trainer = Trainer(config, sets, run, new_model(config, self.base_weights), runtime)
        trainer.record = self.recipe.record
        trainer.resume()
        trainer.run(lambda line: self.say(f"{run.name}: {line}"))
        model = load_bundle(run / "bundle", self.base_weights).to(runtime.device)
        return SlicePredictor(model, runtime, open_bundle(run / "bundle").config.volume)(scored, "cam")


@dataclass(frozen=True)
class OutOfFold:
    """What was predicted of n slices with a known answer, each by a model that never saw its patient.

    The recipe's gate along z was on. Each fold has a prompt threshold of its own.
    """

    data: SliceDataset
    folds: np.ndarray  # int [n]
    masks: np.ndarray  # bool [n, S, S]
    p_liver: np.ndarray  # float32 [n]
    prompted: np.ndarray  # bool [n]
    signs: np.ndarray  # float [n, 7], signs of doubt, see SAMMixLib.inference.quality; NaN without a mask

    @property
    def found(self) -> SlicePredictions:
        nan = float("nan")
        return SlicePredictions(self.masks, self.p_liver, self.prompted, nan, nan, boxes=[])

    def quality(self, dice: np.ndarray) -> tuple[QualityModel, np.ndarray]:
        """A model of the Dice to expect, fitted on all slices, and what is expected of each by those of other folds.

        Args:
            dice: float [n], NaN where neither the mask nor the reference holds anything.
        """
        expected = np.full(len(dice), np.nan)
        for fold in np.unique(self.folds):
            own = self.folds == fold
            expected[own] = fit_quality(self.signs[~own], dice[~own]).expected_dice(self.signs[own])
        return fit_quality(self.signs, dice), expected

    @classmethod
    def of(cls, data: SliceDataset, found: SlicePredictions, fold: int) -> OutOfFold:
        """Predictions of one fold's slices."""
        assert found.cams is not None and found.predicted_iou is not None
        signs = np.full((len(data), len(SIGNS)), np.nan)
        for name in data.patient_names():
            own = np.flatnonzero(data.patients == name)
            own = own[np.argsort(data.indices[own])]
            signs[own] = signs_of_doubt(
                found.masks[own],
                found.cams[own] / 255,
                [[outer_pixels(box) for box in found.boxes[n].tolist()] for n in own],
                p_liver=found.p_liver[own],
                predicted_iou=found.predicted_iou[own],
            )
        return cls(data, np.full(len(data), fold), found.masks, found.p_liver, found.prompted, signs)

    @classmethod
    def joined(cls, parts: Sequence[OutOfFold]) -> OutOfFold:
        names = [field.name for field in fields(cls)][1:]
        rest = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(SliceDataset.concatenate([part.data for part in parts]), **rest)

    def save(self, path: Path) -> None:
        stored = {name: getattr(self, name) for name in ("p_liver", "prompted", "signs")}
        stored["masks"] = np.packbits(self.masks.reshape(len(self.masks), -1), axis=1)
        with atomic(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, patients=self.data.patients, indices=self.data.indices, **stored)

    @classmethod
    def load(cls, path: Path, data: SliceDataset, fold: int) -> OutOfFold:
        """Those of :meth:`save`.

        Raises:
            SAMMixError: they are of other slices than `data`.
        """
        with np.load(path) as stored:
            if not all(np.array_equal(stored[name], getattr(data, name)) for name in ("patients", "indices")):
                raise SAMMixError(f"{path}: holds predictions of other slices; choose another folder")
            shape = data.masks.shape
            bits = np.unpackbits(stored["masks"], axis=1, count=int(np.prod(shape[1:])))
            rest = [stored[name] for name in ("p_liver", "prompted", "signs")]
        return cls(data, np.full(len(data), fold), bits.reshape(shape).astype(bool), *rest)


def patient_folds(
    names: Iterable[str], count: int, seed: int, *, same: Mapping[str, str] | None = None
) -> dict[str, int]:
    """The fold of each patient, 0 to ``count - 1``, drawn by `seed`; folds differ by one patient at most.

    Args:
        same: other names of a patient, where two sources hold the same one: they share the fold, and count once.

    Raises:
        SAMMixError: there are fewer folds than three, or fewer patients than folds.

    Example:
        >>> folds = patient_folds(["a", "b", "c", "also a"], 3, 0, same={"also a": "a"})
        >>> folds["also a"] == folds["a"], len({folds["a"], folds["b"], folds["c"]})
        (True, 3)
    """
    names, same = sorted(set(names)), dict(same or {})
    patients = sorted({same.get(name, name) for name in names})
    if not FEWEST <= count <= len(patients):
        raise SAMMixError(f"{count} folds of {len(patients)} patients; take {FEWEST} at least, none of them empty")
    drawn = np.random.default_rng(seed).permutation(patients).tolist()
    fold = {name: place % count for place, name in enumerate(drawn)}
    return {name: fold[same.get(name, name)] for name in names}
