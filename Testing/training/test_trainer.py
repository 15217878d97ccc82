"""Two loaders, joint training, resume after a kill, and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from SAMMixLib.config import PRESETS, Config
from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.data.spec import DatasetSpec
from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation.metrics import mean_dice
from SAMMixLib.inference.device import Runtime
from SAMMixLib.inference.slices import SlicePredictor
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.models.card import open_bundle
from SAMMixLib.training.checkpoint import trained_state, write_checkpoint
from SAMMixLib.training.loaders import SliceBatches, batch_indices
from SAMMixLib.training.objective import Objective
from SAMMixLib.training.recipe import Recipe, read_recipe
from SAMMixLib.training.sets import TrainingData, check_split, check_training_sets
from SAMMixLib.training.trainer import Trainer, learning_rate_scale, new_model
from SAMMixLib.training.validation import validation_subset


def tiny_config(**training) -> Config:
    """A run of a few steps, with the real backbone and a thin classifier."""
    starter = PRESETS["starter"]
    settings = {"epochs": 2, "batch_size": 3, "mask_batch_size": 1, "validation_slices": 2, "labelled_slices": 2}
    return replace(
        starter,
        model=replace(starter.model, classifier_width=1 / 16),
        training=replace(starter.training, **(settings | training)),
    )


def trainer_of(config: Config, sets: tuple[SliceDataset, SliceDataset], folder: Path) -> Trainer:
    return Trainer(config, TrainingData(*sets), folder, new_model(config))


def phantom_slices(seed: int, name: str) -> SliceDataset:
    """Six slices of a phantom patient, four of them with liver."""
    import SimpleITK as sitk

    phantom = make_phantom(seed, size=(256, 256, 12))
    images, masks = (sitk.GetArrayFromImage(image) for image in (phantom.ct, phantom.liver))
    chosen = np.array([0, 3, 5, 6, 7, 11])
    return SliceDataset(
        images=images[chosen].astype(np.int16),
        labels=masks[chosen].any(axis=(1, 2)),
        masks=masks[chosen].astype(np.uint8),
        has_mask=np.ones(6, bool),
        patients=np.array([name] * 6),
        indices=chosen,
        spacings=np.full((6, 2), 1.5, np.float32),
    )


@pytest.fixture(scope="module")
def sets() -> tuple[SliceDataset, SliceDataset]:
    return phantom_slices(0, "a"), phantom_slices(1, "b")


@pytest.fixture(scope="module")
def npz_folder(sets, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("npz")
    for data in sets:
        image = ((np.clip(data.images, -40, 160) + 40) / 200 * 255).astype(np.uint8)
        np.savez_compressed(folder / f"{data.patients[0]}.npz", image=image, mask=data.masks, slice=data.indices)
    return folder


def test_a_pass_shows_each_slice_once_and_a_step_needs_no_history():
    drawn = np.concatenate([batch_indices(10, 4, 7, step) for step in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert np.array_equal(batch_indices(10, 4, 7, 3), drawn[12:16])
    assert not np.array_equal(batch_indices(10, 4, 8, 3), drawn[12:16])


def test_batches_are_windowed_augmented_and_repeatable(sets):
    config = tiny_config()
    batches = SliceBatches(sets[0], config, 4, stream=1)
    first, again = batches(5), SliceBatches(sets[0], config, 4, stream=1)(5)
    assert torch.equal(first.slices, again.slices) and torch.equal(first.masks, again.masks)
    assert first.slices.shape == (4, 1, 256, 256) and first.slices.min() >= 0 and first.slices.max() <= 1
    plain = SliceBatches(sets[0], tiny_config(augment=False), 4, stream=1)(5)
    assert torch.equal(plain.labels, first.labels) and not torch.equal(plain.slices, first.slices)


def test_batches_look_like_those_of_other_scanners(sets):
    config = tiny_config(augment=False, scanners=True)
    first, again = (SliceBatches(sets[0], config, 4, stream=1)(5) for _ in range(2))
    assert torch.equal(first.slices, again.slices) and torch.equal(first.masks, again.masks)
    plain = SliceBatches(sets[0], tiny_config(augment=False), 4, stream=1)(5)
    assert torch.equal(plain.labels, first.labels) and first.slices.shape == plain.slices.shape
    assert not torch.equal(plain.slices, first.slices) and not torch.equal(plain.masks.float(), first.masks)


@pytest.mark.parametrize("changes", [{"classification": "cross_entropy"}, {"cam_loss": "outline"}])
def test_the_config_chooses_the_losses_of_the_classifier(sets, changes):
    config = tiny_config(augment=False)
    batch = SliceBatches(sets[0], config, 4, stream=1)(0)
    model, runtime = new_model(config).eval(), Runtime()  # no dropout
    paper = Objective(model, config, runtime).classification(batch)
    chosen = replace(config, training=replace(config.training, **changes))
    other = Objective(model, chosen, runtime).classification(batch)
    changed = [not torch.equal(a, b) for a, b in zip(paper, other, strict=True)]
    assert changed == ["classification" in changes, "cam_loss" in changes]


@pytest.mark.slow
def test_same_seed_same_weights_also_when_resumed(sets, tmp_path):
    weights = {}
    config = tiny_config()
    for name, kill_after in (("whole", None), ("resumed", 2)):
        folder = tmp_path / name
        folder.mkdir()
        trainer = trainer_of(config, sets, folder)
        if kill_after:
            for step in range(kill_after):  # what a run does before it is killed between two checkpoints
                trainer.train_step(step)
                trainer.state.step += 1
                if trainer.state.step == 1:
                    write_checkpoint({**trainer.checkpoint(), "run": vars(trainer.state)}, folder)
            trainer = trainer_of(config, sets, folder)
            trainer.resume()
            assert trainer.state.step == 1
        trainer.run()
        bundle = folder / "bundle"
        weights[name] = trained_state(trainer.kept_model)
        assert open_bundle(bundle).card["training"]["prompt"] == "cam"
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2]
        assert (folder / "curves.png").stat().st_size > 1000
    assert weights["whole"].keys() == weights["resumed"].keys()
    for key, value in weights["whole"].items():
        assert torch.equal(value, weights["resumed"][key]), key


@pytest.mark.slow
def test_bundle_carries_the_prompt_threshold_that_validation_chose(sets, tmp_path):
    trainer = trainer_of(tiny_config(), sets, tmp_path)
    trainer.run()
    model = load_bundle(tmp_path / "bundle")
    found = SlicePredictor(model)(sets[1])
    seen = found.p_liver >= model.config.prompt_threshold
    assert 0 < model.config.prompt_threshold < 1
    assert trainer.kept_config.model.prompt_threshold == trainer.state.prompt_threshold
    assert not found.masks[~seen].any()
    by_half = found.masks & (found.p_liver >= 0.5)[:, None, None]
    assert mean_dice(found.masks, sets[1].masks) >= mean_dice(by_half, sets[1].masks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapts", "rate"), [("lora,decoder", 1e-3), ("lora", 1e-3), ("decoder", 1e-3), ("lora,decoder", 0.0)]
)
def test_training_changes_what_it_should_and_nothing_else(sets, tmp_path, adapts, rate):
    trainer = trainer_of(tiny_config(weight_average=0.0, adapts=adapts, learning_rate=rate), sets, tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train_step(0)
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    of_classifier = {name for name in changed if name.startswith("classifier.")}
    assert "classifier.head.weight" in of_classifier if rate else not of_classifier
    assert any("lora_B" in name for name in changed) is ("lora" in adapts)
    assert any("mask_decoder" in name for name in changed) is ("decoder" in adapts)
    assert changed <= set(trained_state(trainer.model))
    assert not any("prompt_encoder" in name or "base_layer" in name for name in changed)


@pytest.mark.slow
def test_views_are_seen_once_by_the_frozen_part_and_train_what_slices_train(sets, tmp_path):
    config = tiny_config(views=2, steps=2, weight_average=0.0)
    config = replace(config, model=replace(config.model, classifier="encoder_head"))

    trainer = trainer_of(config, sets, tmp_path)
    batch = trainer.loaders.segment(0)
    assert trainer.validation_features is not None
    with torch.inference_mode():
        features = trainer.model.encode_frozen(batch.slices)
    assert torch.allclose(batch.features, features, atol=0.02 * features.abs().max().item())

    written = sorted((tmp_path / "features").iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer.model.backbone), "encode_frozen", None)  # the stored features are all that is used
        trainer.run()
    bundle = tmp_path / "bundle"
    assert sorted((tmp_path / "features").iterdir()) == written and len(written) == 2
    assert open_bundle(bundle).config == trainer.kept_config


@pytest.mark.slow
def test_a_few_masks_teach_by_views_of_their_own(sets, tmp_path):
    config = tiny_config(views=1, labelled_views=4, labelled_slices=1, cam_weight=0.3)
    config = replace(config, model=replace(config.model, classifier="encoder_head"))
    trainer = trainer_of(config, sets, tmp_path)

    def shown(batches) -> set[tuple[bytes, bytes]]:
        drawn = [batches(step) for step in range(20)]
        return {
            (image.numpy().tobytes(), mask.numpy().tobytes())
            for b in drawn
            for image, mask in zip(b[0], b[2], strict=True)
        }

    assert len(shown(trainer.loaders.classify)) == len(sets[0])
    masked = shown(trainer.loaders.segment)
    assert len(masked) == 4 and shown(trainer.loaders.activate) == masked
    assert trainer.loaders.activate(0).has_liver_mask.all()
    assert 0 < trainer.seconds_of_labelled_views() < 60
    assert trainer_of(tiny_config(), sets, tmp_path / "other").seconds_of_labelled_views() == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_kill_9_and_resume_through_the_command_line(npz_folder, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny_config(epochs=2).to_dict()))
    run = tmp_path / "run"
    sammix = [sys.executable, "-m", "SAMMixLib", "train"]
    start = [*sammix, "--data", str(npz_folder), "--validation", "b", "--config", str(config), "-o", str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (run / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (run / "checkpoint.pt").exists()
    again = subprocess.run([*sammix, "--resume", str(run), "--json"], env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["prompt"] == "cam"
    assert open_bundle(run / "bundle").card["training"]["labelled_slices"] == 2


def test_a_damaged_checkpoint_is_refused(sets, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(SAMMixError, match="not a readable checkpoint"):
        trainer_of(tiny_config(), sets, tmp_path).resume()


def test_bad_sets_are_refused_before_anything_starts(sets):
    train, validation = sets
    for wrong, other, word in (
        (train.select(train.labels), validation, "without liver"),
        (train.select(~train.labels), validation, "no slice with liver"),
        (replace(train, has_mask=np.zeros(6, bool)), validation, "no liver mask"),
    ):
        with pytest.raises(SAMMixError, match=word):
            check_training_sets(wrong, other)
    with pytest.raises(SAMMixError, match="patient a is in"):
        check_split(train, train)


def test_recipe_lists_slices_and_survives_its_folder(npz_folder, tmp_path):
    recipe = Recipe([DatasetSpec(str(npz_folder))], tiny_config(), ["b"], [("a", 5), ("a", 6)])
    recipe.save(tmp_path)
    train, validation, labelled = read_recipe(tmp_path / "recipe.json").read()
    assert train.patient_names() == ["a"] and validation.patient_names() == ["b"]
    assert train.indices[labelled].tolist() == [5, 6]
    other = Recipe([DatasetSpec(str(npz_folder), mask_value=9)], tiny_config(), ["b"])
    assert not other.read()[0].labels.any(), "nothing in the masks has this value"
    for listed, word in (([("a", 99)], "not in the training set"), ([("c", 5)], "patient c")):
        with pytest.raises(SAMMixError, match=word):
            Recipe([DatasetSpec(str(npz_folder))], tiny_config(), ["b"], listed).read()


def test_learning_rate_and_validation_subset(sets):
    assert learning_rate_scale(5, 100, 0.0) == 1
    rates = [learning_rate_scale(step, 100, 0.1) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == max(rates) and rates[99] < 0.01
    assert validation_subset(sets[0], 3).indices.tolist() == [3, 6, 11]
    unscored = replace(sets[0], has_mask=np.zeros(6, bool))
    assert not validation_subset(unscored, None).labels.any(), "a liver without a mask cannot be scored"
