"""Cross-validation by patient: every patient is scored by a model that never saw them.

Of a fold's patients nothing is used but the score: the best epoch and the prompt threshold are chosen on the patients
of the next fold, whom this fold's model does not learn from either. A folder holds one run for each fold and what it
said of the fold's patients, so a killed cross-validation goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic
from SAMMixLib.inference.device import Runtime
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

    def __call__(self, folder: str | Path, runtime: Runtime = Runtime()) -> tuple[SliceDataset, SlicePredictions]:
        """Train the models, and let each segment the patients that it never saw, with nothing but the image.

        Returns:
            All slices whose answer is known, in the order of the folds, and what was predicted with the recipe's gate
            along z. Each fold has a prompt threshold of its own, so none is given.

        Raises:
            SAMMixError: as :func:`patient_folds` and :class:`~SAMMixLib.training.trainer.Trainer`; or the folder
                belongs to another recipe or to other folds.
        """
        recipe, folder = self.recipe, Path(folder)
        recipe.claim(folder)
        data = recipe.read_all()
        fold_of = patient_folds(data.patient_names(), self.folds, recipe.config.training.seed, same=recipe.same)
        folds = np.array([fold_of[name] for name in data.patients])
        known = data.has_mask | ~data.labels
        scored = [data.select((folds == fold) & known) for fold in range(self.folds)]
        for fold, of_fold in enumerate(scored):
            path = folder / f"fold-{fold}" / PREDICTIONS
            if not path.is_file():
                inner = (fold + 1) % self.folds
                sets = TrainingData(data.select((folds != fold) & (folds != inner)), data.select(folds == inner))
                _save(path, of_fold, self._out_of_fold(sets, of_fold, path.parent, runtime))
                return_memory()
        found = [_load(folder / f"fold-{fold}" / PREDICTIONS, of_fold) for fold, of_fold in enumerate(scored)]
        masks, p_liver, prompted = (np.concatenate(parts) for parts in zip(*found, strict=True))
        nan = float("nan")
        return SliceDataset.concatenate(scored), SlicePredictions(masks, p_liver, prompted, nan, nan, boxes=[])

    def _out_of_fold(self, sets: TrainingData, scored: SliceDataset, run: Path, runtime: Runtime) -> SlicePredictions:
        run.mkdir(parents=True, exist_ok=True)
        config = self.recipe.config
        trainer = Trainer(config, sets, run, new_model(config, self.base_weights), runtime)
        trainer.record = self.recipe.record
        trainer.resume()
        trainer.run(lambda line: self.say(f"{run.name}: {line}"))
        model = load_bundle(run / "bundle", self.base_weights).to(runtime.device)
        return SlicePredictor(model, runtime, open_bundle(run / "bundle").config.volume)(scored, "cam")


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


def _save(path: Path, data: SliceDataset, found: SlicePredictions) -> None:
    bits = np.packbits(found.masks.reshape(len(found.masks), -1), axis=1)
    with atomic(path) as beside, beside.open("wb") as file:
        np.savez_compressed(
            file, patients=data.patients, indices=data.indices, masks=bits, p_liver=found.p_liver,
            prompted=found.prompted,
        )  # fmt: skip


def _load(path: Path, data: SliceDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks, p(liver) and which slices were prompted."""
    with np.load(path) as stored:
        if not all(np.array_equal(stored[name], getattr(data, name)) for name in ("patients", "indices")):
            raise SAMMixError(f"{path}: holds predictions of other slices; choose another folder")
        shape = data.masks.shape
        bits = np.unpackbits(stored["masks"], axis=1, count=int(np.prod(shape[1:])))
        return bits.reshape(shape).astype(bool), stored["p_liver"], stored["prompted"]
