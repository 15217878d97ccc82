"""Cross-validation by patient: who is in which fold, what a model may see, and going on after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from SAMMixLib.cli import main
from SAMMixLib.config import PRESETS
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.data.spec import DatasetSpec
from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.quality import SIGNS, QualityModel
from SAMMixLib.inference.slices import SlicePredictions
from SAMMixLib.training import crossvalidation
from SAMMixLib.training.crossvalidation import CrossValidation, patient_folds
from SAMMixLib.training.recipe import Recipe, read_recipe

REPOSITORY = Path(__file__).parents[2]
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
    return Recipe([DatasetSpec(str(tmp_path / "data"))], config, same={"q6": "p6"})


def test_every_patient_has_one_fold_and_shares_it_with_their_other_names():
    folds = patient_folds([*NAMES, "q6"], 3, 0, same={"q6": "p6"})
    assert folds["q6"] == folds["p6"]
    sizes = np.bincount([folds[name] for name in NAMES])
    assert sizes.max() - sizes.min() <= 1 and sizes.sum() == 7
    assert folds == patient_folds(["q6", *reversed(NAMES)], 3, 0, same={"q6": "p6"})
    for count in (2, 8):
        with pytest.raises(SAMMixError, match="folds of 7 patients"):
            patient_folds(NAMES, count, 0)


@pytest.fixture
def trained(monkeypatch) -> list[tuple[set, set]]:
    """In place of training: the patients that each model learned from and was validated on."""
    seen = []

    class Recorder:
        def __init__(self, config, data, folder, model, runtime):
            self.say = lambda line: None
            seen.append((set(data.train.patients), set(data.validation.patients)))

        def resume(self):
            pass

        def run(self, say):
            say("epoch 1")

    class Oracle:
        def __init__(self, model, runtime, along_z):
            assert along_z == PRESETS["starter"].volume

        def __call__(self, data: SliceDataset, prompt: str) -> SlicePredictions:
            assert prompt == "cam"
            p_liver = data.labels.astype(np.float32)
            boxes = [torch.tensor([[8.0, 8, 20, 20]] if seen else []).reshape(-1, 4) for seen in data.labels]
            cams = (data.masks * 255).astype(np.uint8)
            return SlicePredictions(data.masks > 0, p_liver, data.labels, 0.5, 0.5, boxes, cams, p_liver * 0.9)

    monkeypatch.setattr(crossvalidation, "Trainer", Recorder)
    monkeypatch.setattr(crossvalidation, "new_model", lambda config, base_weights: None)
    monkeypatch.setattr(
        crossvalidation, "load_bundle", lambda folder, base_weights: SimpleNamespace(to=lambda device: None)
    )
    monkeypatch.setattr(crossvalidation, "open_bundle", lambda folder: SimpleNamespace(config=PRESETS["starter"]))
    monkeypatch.setattr(crossvalidation, "SlicePredictor", Oracle)
    return seen


@pytest.mark.slow
def test_no_model_scores_a_patient_that_it_saw(recipe, trained, tmp_path):
    lines: list[str] = []
    predicted = CrossValidation(recipe, 3, say=lines.append)(tmp_path / "run")
    data, found = predicted.data, predicted.found
    assert sorted(data.patients) == sorted([*NAMES, "q6"] * 4) and lines[0] == "fold-0: epoch 1" and len(lines) == 3
    assert np.array_equal(found.masks, data.masks > 0) and np.array_equal(found.p_liver > 0.5, data.labels)
    assert np.array_equal(found.prompted, data.labels)
    folds = patient_folds(data.patient_names(), 3, 0, same=recipe.same)
    assert predicted.folds.tolist() == [folds[name] for name in data.patients]
    for fold, (train, validation) in enumerate(trained):
        assert {folds[name] for name in validation} == {(fold + 1) % 3}
        assert {folds[name] for name in train} == {(fold + 2) % 3}


@pytest.mark.slow
def test_a_fold_that_is_done_is_not_done_again(recipe, trained, tmp_path):
    first = CrossValidation(recipe, 3)(tmp_path / "run")
    (tmp_path / "run" / "fold-1" / "predictions.npz").unlink()
    again = CrossValidation(recipe, 3)(tmp_path / "run")
    assert len(trained) == 4 and np.array_equal(first.masks, again.masks)
    assert np.array_equal(first.signs, again.signs, equal_nan=True)
    other = replace(recipe, sources=[replace(recipe.sources[0], exclude=("p0",))])
    with pytest.raises(SAMMixError, match="something else"):
        CrossValidation(other, 3)(tmp_path / "run")
    with pytest.raises(SAMMixError, match="something else"):
        CrossValidation(recipe, 3)(tmp_path / "data")
    with pytest.raises(SAMMixError, match="other slices"):
        CrossValidation(recipe, 4)(tmp_path / "run")


@pytest.mark.slow
def test_no_fold_tells_what_to_expect_of_its_own_slices(recipe, trained, tmp_path):
    predicted = CrossValidation(recipe, 3)(tmp_path / "run")
    signs = dict(zip(SIGNS, predicted.signs[predicted.data.labels][0], strict=True))
    assert signs["CAM against mask"] == 1 and signs["outside the box"] == 0
    masked = predicted.masks.any(axis=(1, 2))
    dice = np.where(masked, np.where(predicted.folds == 0, 0.2, 0.9), np.nan)
    fitted, expected = predicted.quality(dice)
    assert np.isnan(expected[~masked]).all() and 0.2 < fitted.expected_dice(predicted.signs[masked]).min() < 0.9
    assert np.allclose(expected[masked & (predicted.folds == 0)], 0.9, atol=0.02)  # the others know nothing of 0.2


@pytest.mark.slow
def test_the_command_leaves_figures_and_the_estimate(recipe, trained, tmp_path, capsys):
    recipe.save(tmp_path)
    out = tmp_path / "run"
    assert (
        main(["crossvalidate", str(tmp_path / "recipe.json"), "--folds", "3", "-o", str(out), "--device", "cpu"]) == 0
    )
    assert "prompt: cam" in capsys.readouterr().out
    assert "| p0 | 2 | 1.000 | 0 |" in (out / "breakdown.md").read_text()
    fitted = QualityModel.from_dict(json.loads((out / "quality.json").read_text()))
    assert np.nanmin(fitted.expected_dice(np.full((1, len(SIGNS)), 0.0))) > 0.5
    assert json.loads((out / "evaluation.json").read_text())["summary"]["volume_dice"]["value"] == 1


@pytest.mark.parametrize("path", sorted((REPOSITORY / "Resources" / "recipes").glob("*.json")), ids=lambda p: p.stem)
def test_the_recipes_that_are_kept_hold_no_patient_in_two_sets(path):
    recipe = read_recipe(path)
    left_out = {name for source in recipe.sources for name in source.exclude}
    assert len(set(recipe.same.values())) == len(recipe.same) and not left_out & set(recipe.same)
    assert not set(recipe.validation) & {*recipe.same, *recipe.same.values()}  # their other names are left out


def test_a_recipe_holds_both_names_of_a_patient_out(recipe, tmp_path):
    recipe.save(tmp_path)
    for name in ("p6", "q6"):
        train, validation, _ = replace(read_recipe(tmp_path / "recipe.json"), validation=[name]).read()
        assert set(validation.patients) == {"p6", "q6"} and not {"p6", "q6"} & set(train.patients)
    for seed in range(4):
        config = replace(recipe.config, training=replace(recipe.config.training, seed=seed))
        train, validation, _ = replace(recipe, config=config).read()
        assert ("p6" in validation.patients) == ("q6" in validation.patients) == ("q6" not in train.patients)
