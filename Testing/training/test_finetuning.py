"""From a training set to a new model beside its parent: what comes out, what is refused, what a kill costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file

from SAMMixLib import config
from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.data.slices import read_slices
from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.bundle import load_bundle
from SAMMixLib.models.card import CLASSIFIER, DECODER, open_bundle
from SAMMixLib.models.registry import find_model
from SAMMixLib.structure import SPLEEN
from SAMMixLib.training import finetuning
from SAMMixLib.training.finetuning import FineTuning, blend, check_set, fine_tune, hold_out

SHORT = {"steps": 2, "batch_size": 2, "mask_batch_size": 1}


def collected(folder, masks=(5, 6), labels=(0, 3, 11), structure=None) -> TrainingSet:
    """Slices of a phantom: `masks` with their mask, `labels` with an image-level label only."""
    phantom = make_phantom(1, size=(256, 256, 12))
    images, liver = (sitk.GetArrayFromImage(image) for image in (phantom.ct, phantom.liver))
    made = TrainingSet.create(folder, *([] if structure is None else [structure]))
    for ks, with_mask in ((list(masks), True), (list(labels), False)):
        if ks:
            has = liver[ks].any(axis=(1, 2))
            made.add(LabelledSlices("phantom", ks, images[ks], (1.5, 1.5), has, liver[ks] if with_mask else None))
    return made


@pytest.fixture
def short(monkeypatch):
    for preset, settings in list(config.FINE_TUNING.items()):
        views = {"views": 1} if settings.views else {}
        monkeypatch.setitem(config.FINE_TUNING, preset, replace(settings, **SHORT, **views))
    monkeypatch.setitem(finetuning.NEW_CLASSIFIER, "steps", 2)


@pytest.mark.slow
@pytest.mark.parametrize("preset", config.FINE_TUNING)
def test_the_same_set_and_seed_give_the_same_model_and_its_card_says_where_from(preset, tmp_path, short):
    slices = collected(tmp_path / "set").folder
    figures = []
    one = fine_tune(slices, "starter", tmp_path / "one", FineTuning(preset, watch=figures.append))
    two = fine_tune(slices, "starter", tmp_path / "two", FineTuning(preset))
    for name in (CLASSIFIER, DECODER):
        a, b = load_file(one.bundle / name), load_file(two.bundle / name)
        assert all(torch.equal(a[key], b[key]) for key in a)
    parent = load_file(find_model("starter") / CLASSIFIER)
    child = load_file(one.bundle / CLASSIFIER)
    assert all(torch.equal(parent[key], child[key]) for key in parent if parent[key].is_floating_point())
    parent = load_file(find_model("starter") / DECODER)
    assert any(not torch.equal(parent[key], a[key]) for key in a)
    card = open_bundle(one.bundle).card
    assert card["training"]["parent"]["name"] == "starter"
    assert (one.masks, len(one.held_out), one.labels) == (1, 1, 4)
    for told in ("validation_dice", "checkpoint"):
        assert [line["step"] for line in figures if told in line] == [1, 2]
    assert 0.5 < one.before <= 1 and (one.after > one.before) is one.better


@pytest.mark.slow
def test_another_structure_gets_its_own_classifier(tmp_path, short):
    slices = collected(tmp_path / "set", structure=SPLEEN).folder
    tuned = fine_tune(slices, "starter", tmp_path / "run")
    bundle, parent = (open_bundle(folder) for folder in (tuned.bundle, find_model("starter")))
    assert bundle.structure == SPLEEN
    old, new = (load_bundle(each.folder).classifier.state_dict() for each in (parent, bundle))
    assert not any(torch.allclose(old[key], new[key]) for key in new if key.endswith("weight"))
    # Where the parent's classifier drew its lines says nothing of the new one's.
    model, volume = bundle.config.model, bundle.config.volume
    assert model.prompt_threshold == volume.gate_high == volume.gate_low != parent.config.model.prompt_threshold


@pytest.mark.parametrize(
    ("masks", "labels", "words"),
    [
        ((), (0, 11), "no slice of the training set shows the liver"),
        ((5, 6), (), "every slice of the training set shows the liver"),
        ((5,), (0,), "one slice of the training set has a mask"),
        ((), (0, 5, 6), "no slice of the training set has a mask"),
    ],
)
def test_sets_that_cannot_be_trained_on_are_refused_before_anything_starts(tmp_path, masks, labels, words):
    slices = collected(tmp_path / "set", masks, labels).folder
    with pytest.raises(SAMMixError, match=words):
        fine_tune(slices, "starter", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_empty_mask_and_another_runs_folder_are_refused(tmp_path, short):
    slices = collected(tmp_path / "set").folder
    data = read_slices(slices, 256)
    data.masks[data.has_mask] = 0
    with pytest.raises(SAMMixError, match="is empty"):
        check_set(data, "liver")
    fine_tune(slices, "starter", tmp_path / "run")
    with pytest.raises(SAMMixError, match="belongs to another"):
        fine_tune(slices, "starter", tmp_path / "run", FineTuning(seed=1))


def test_every_fifth_slice_is_held_out_by_the_seed():
    labels = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1], bool)
    data = SimpleNamespace(labels=labels, has_mask=np.arange(11) < 5)
    held = [hold_out(data, seed) for seed in range(6)]
    assert all(each[:5].sum() == each[5:10].sum() == 1 and not each[10] for each in held)
    assert len({int(each.argmax()) for each in held}) > 1


@pytest.mark.slow
def test_blending_lies_between_child_and_parent():
    from SAMMixLib.models.bundle import load_bundle
    from SAMMixLib.training.checkpoint import trained_state

    parent, child = load_bundle(find_model("starter")), load_bundle(find_model("starter"))
    weight = child.classifier.head.weight
    with torch.no_grad():
        weight += 1
    blend(child, parent, 0.25)
    assert torch.allclose(child.classifier.head.weight, parent.classifier.head.weight + 0.75)
    assert set(trained_state(child)) == set(trained_state(parent))


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    """From the command line, which gives the model that the function gives."""
    slices = collected(tmp_path / "set").folder
    script = (
        "import sys; from dataclasses import replace;"
        "from SAMMixLib import config; from SAMMixLib.training import loop;"
        "from SAMMixLib.cli import main;"
        f"config.FINE_TUNING['quick'] = replace(config.FINE_TUNING['quick'], **{SHORT | {'views': 1, 'steps': 4}!r});"
        "loop.CHECKPOINT_SECONDS = 0; sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SAMMIX_HOME": str(tmp_path / "home")}

    def command(run):
        return [sys.executable, "-c", script, "train", "--slices", str(slices), "-o", str(run), "--json"]

    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    bundles = []
    for run in (killed, tmp_path / "whole"):
        done = subprocess.run(command(run), env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["prompt"] == "cam"
        bundles.append(run / "bundle")
    for name in (CLASSIFIER, DECODER):
        a, b = (load_file(bundle / name) for bundle in bundles)
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_held_out_pictures_belong_to_the_slices_named(tmp_path, short):
    tuned = fine_tune(collected(tmp_path / "set").folder, "starter", tmp_path / "run")
    assert tuned.images.shape == tuned.references.shape == tuned.before_masks.shape == tuned.after_masks.shape
    assert tuned.held_out[0][0] == "phantom" and np.count_nonzero(tuned.references) > 0
