"""Cross-validation by patient: who is in which fold, what a model may see, going on after a kill; and the breakdown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from SAMMixLib import crossvalidation
from SAMMixLib.breakdown import as_text, by_patient, by_size, calibration
from SAMMixLib.config import PRESETS
from SAMMixLib.crossvalidation import cross_validate, patient_folds
from SAMMixLib.errors import SAMMixError
from SAMMixLib.prediction import SlicePredictions
from SAMMixLib.recipe import Recipe, Source

NAMES = [f"p{n}" for n in range(7)]


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """Seven patients of four slices each; p6 is stored a second time, as q6."""
    (tmp_path / "data").mkdir()
    for name in [*NAMES, "q6"]:
        mask = np.zeros((4, 32, 32), np.uint8)
        mask[1:3, 8:20, 8:20] = 1
        image = np.full((4, 32, 32), 100, np.uint8) + mask * 50
        np.savez(tmp_path / "data" / f"{name}.npz", image=image, mask=mask, slice=np.arange(4))
    config = replace(PRESETS["starter"], model=replace(PRESETS["starter"].model, size=32))
    return Recipe([Source(str(tmp_path / "data"))], config, same={"q6": "p6"})


def test_every_patient_has_one_fold_and_shares_it_with_their_other_names():
    folds = patient_folds([*NAMES, "q6"], 3, 0, {"q6": "p6"})
    assert folds["q6"] == folds["p6"]
    sizes = np.bincount([folds[name] for name in NAMES])
    assert sizes.max() - sizes.min() <= 1 and sizes.sum() == 7
    assert folds == patient_folds(["q6", *reversed(NAMES)], 3, 0, {"q6": "p6"})
    for count in (2, 8):
        with pytest.raises(SAMMixError, match="folds of 7 patients"):
            patient_folds(NAMES, count, 0)


@pytest.fixture
def trained(monkeypatch) -> list[tuple[set, set]]:
    """In place of training: the patients that each model learned from and was validated on."""
    seen = []

    class Recorder:
        def __init__(self, config, train, validation, folder, record, **settings):
            self.folder = folder
            seen.append((set(train.patients), set(validation.patients)))

        def resume(self):
            pass

        def run(self, progress, say):
            say("epoch 1")
            return self.folder / "bundle"

    def predict(model, data, **settings):
        return SlicePredictions(data.masks > 0, data.labels.astype(np.float32), [])

    monkeypatch.setattr(crossvalidation, "Trainer", Recorder)
    monkeypatch.setattr(crossvalidation, "load_bundle", lambda folder: SimpleNamespace(to=lambda device: None))
    monkeypatch.setattr(crossvalidation, "open_bundle", lambda folder: SimpleNamespace(config=PRESETS["starter"]))
    monkeypatch.setattr(crossvalidation, "predict_slices", predict)
    return seen


def test_no_model_scores_a_patient_that_it_saw(recipe, trained, tmp_path):
    lines: list[str] = []
    data, masks, p_liver = cross_validate(recipe, 3, tmp_path / "run", say=lines.append)
    assert sorted(data.patients) == sorted([*NAMES, "q6"] * 4) and len(lines) == 3
    assert np.array_equal(masks, data.masks > 0) and np.array_equal(p_liver > 0.5, data.labels)
    folds = patient_folds(data.patient_names(), 3, 0, recipe.same)
    for fold, (train, validation) in enumerate(trained):
        assert {folds[name] for name in validation} == {(fold + 1) % 3}
        assert {folds[name] for name in train} == {(fold + 2) % 3}


def test_a_fold_that_is_done_is_not_done_again(recipe, trained, tmp_path):
    first = cross_validate(recipe, 3, tmp_path / "run")
    (tmp_path / "run" / "fold-1" / "predictions.npz").unlink()
    again = cross_validate(recipe, 3, tmp_path / "run")
    assert len(trained) == 4
    assert all(np.array_equal(a, b) for a, b in zip(first[1:], again[1:], strict=True))
    other = replace(recipe, sources=[replace(recipe.sources[0], exclude=["p0"])])
    with pytest.raises(SAMMixError, match="other slices"):
        cross_validate(other, 3, tmp_path / "run")


def test_a_recipe_holds_both_names_of_a_patient_out(recipe):
    train, validation, _ = replace(recipe, validation=["p6"]).read()
    assert set(validation.patients) == {"p6", "q6"} and not {"p6", "q6"} & set(train.patients)


def test_breakdown_by_size_patient_and_doubt():
    rows = [
        {"patient": "a", "liver": True, "p_liver": 0.95, "masked": True, "reference_voxels": 150, "dice": 0.5},
        {"patient": "a", "liver": True, "p_liver": 0.95, "masked": False, "reference_voxels": 200, "dice": 0.0},
        {"patient": "b", "liver": True, "p_liver": 0.15, "masked": True, "reference_voxels": 9000, "dice": 0.9},
        {"patient": "b", "liver": False, "p_liver": 0.15, "masked": False, "reference_voxels": 0},
    ]
    assert [(group.slices, group.missed) for group in by_size(rows)] == [(1, 0), (1, 1), (0, 0), (1, 0)]
    assert [(group.name, group.dice) for group in by_patient(rows)] == [("a", 0.25), ("b", 0.9)]
    found = calibration(rows)
    assert found.bins == [(0.15, 0.5, 2), (0.95, 1.0, 2)]
    assert found.error == pytest.approx((2 * 0.35 + 2 * 0.05) / 4)
    assert "below 200 pixels" in as_text(rows)


def test_the_folder_need_not_be_a_path(recipe, trained, tmp_path):
    assert len(cross_validate(recipe, 3, str(Path(tmp_path) / "run"))[0]) == 32
