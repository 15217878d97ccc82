"""Cross-validation by patient: every patient is scored by a model that never saw them.

Of each fold's patients nothing is used but the score: the best epoch and the threshold on p(liver) are chosen on the
patients of the next fold, which this fold's model does not learn from either. A folder holds one run for each fold and
what it said of the fold's patients, so a killed cross-validation goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from SAMMixLib.bundle import load_bundle, open_bundle
from SAMMixLib.errors import SAMMixError
from SAMMixLib.prediction import predict_slices
from SAMMixLib.progress import Progress, silent
from SAMMixLib.recipe import Recipe
from SAMMixLib.runtime import return_memory
from SAMMixLib.slices import SliceDataset
from SAMMixLib.training import Trainer

PREDICTIONS = "predictions.npz"


def patient_folds(names: Iterable[str], count: int, seed: int, same: Mapping[str, str] | None = None) -> dict[str, int]:
    """The fold of each patient, 0 to ``count - 1``, drawn by `seed`; folds differ by one patient at most.

    Args:
        same: other names of a patient, where two sources hold the same one: they share the fold, and count once.

    Raises:
        SAMMixError: there are fewer patients than folds.
    """
    names, same = sorted(set(names)), dict(same or {})
    patients = sorted({same.get(name, name) for name in names})
    if not 3 <= count <= len(patients):
        raise SAMMixError(f"{count} folds of {len(patients)} patients; there are 3 folds at least, none of them empty")
    drawn = np.random.default_rng(seed).permutation(patients).tolist()
    fold = {name: place % count for place, name in enumerate(drawn)}
    return {name: fold[same.get(name, name)] for name in names}


def cross_validate(
    recipe: Recipe,
    count: int,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[SliceDataset, np.ndarray, np.ndarray]:
    """Train `count` models, and let each segment the patients that it never saw, with nothing but the image.

    Returns:
        All slices with a known answer, in the order of the folds; their masks, bool ``[n, S, S]``, with the gate along
        z; and p(liver), float32 ``[n]``.

    Raises:
        SAMMixError: as :func:`patient_folds` and :class:`~SAMMixLib.training.Trainer`; or the folder holds the
            predictions of other slices.
    """
    data, folder = recipe.read_all(), Path(folder)
    fold_of = patient_folds(data.patient_names(), count, recipe.config.training.seed, recipe.same)
    folds = np.array([fold_of[name] for name in data.patients])
    known = data.has_mask | ~data.labels
    parts, masks, p_liver = [], [], []
    for fold in range(count):
        run, scored = folder / f"fold-{fold}", data.select((folds == fold) & known)
        if not (run / PREDICTIONS).is_file():
            run.mkdir(parents=True, exist_ok=True)
            inner = (fold + 1) % count
            train, validation = data.select((folds != fold) & (folds != inner)), data.select(folds == inner)
            trainer = Trainer(recipe.config, train, validation, run, recipe.record, device=device, dtype=dtype)
            trainer.resume()
            bundle = trainer.run(progress, lambda line, fold=fold: say(f"fold {fold}: {line}"))
            del trainer
            model, gating = load_bundle(bundle).to(device), open_bundle(bundle).config.volume
            found = predict_slices(model, scored, dtype=dtype, gating=gating, progress=progress)
            _save(run / PREDICTIONS, scored, found.masks, found.p_liver)
            return_memory()
        mask, p = _load(run / PREDICTIONS, scored)
        parts.append(scored)
        masks.append(mask)
        p_liver.append(p)
    return SliceDataset.concatenate(parts), np.concatenate(masks), np.concatenate(p_liver)


def _save(path: Path, data: SliceDataset, masks: np.ndarray, p_liver: np.ndarray) -> None:
    beside = path.with_name(f".{path.name}")
    with beside.open("wb") as file:
        bits = np.packbits(masks.reshape(len(masks), -1), axis=1)
        np.savez_compressed(file, patients=data.patients, indices=data.indices, masks=bits, p_liver=p_liver)
    os.replace(beside, path)


def _load(path: Path, data: SliceDataset) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as stored:
        same = np.array_equal(stored["patients"], data.patients) and np.array_equal(stored["indices"], data.indices)
        if not same:
            raise SAMMixError(f"{path}: holds predictions of other slices; choose another folder")
        shape = data.masks.shape
        bits = np.unpackbits(stored["masks"], axis=1, count=int(np.prod(shape[1:])))
        return bits.reshape(shape).astype(bool), stored["p_liver"]
