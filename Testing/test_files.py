"""A file is whole or not there, and where things live."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from SAMMixLib import paths
from SAMMixLib.cohort.records import Place, read_record
from SAMMixLib.config import read_config
from SAMMixLib.data.training_set import TrainingSet
from SAMMixLib.errors import SAMMixError
from SAMMixLib.experiments.protocol import read_protocol
from SAMMixLib.files import atomic, atomic_folder, sha256_of, write_text
from SAMMixLib.models.card import open_bundle
from SAMMixLib.models.registry import import_model
from SAMMixLib.training.recipe import read_recipe


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path):
    target = tmp_path / "figures.json"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic(target) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("durable", [False, True])
def test_the_file_beside_keeps_the_suffix_and_takes_the_place(tmp_path, durable):
    target = tmp_path / ("x" * 240 + ".seg.nrrd")
    with atomic(target, durable) as beside:
        assert beside.parent == tmp_path and beside.name.endswith(".seg.nrrd") and len(beside.name) < 60
        beside.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_line_ends_are_the_same_on_every_platform(tmp_path):
    write_text(tmp_path / "a.txt", "one\ntwo\n")
    assert (tmp_path / "a.txt").read_bytes() == b"one\ntwo\n"


def test_a_hash_of_what_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SAMMixError, match="absent"):
        sha256_of(tmp_path / "absent")


def test_sammix_home_holds_models_sets_and_trainings(monkeypatch, tmp_path):
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path))
    folders = (paths.models_folder(), paths.training_sets_folder(), paths.trainings_folder())
    assert [folder.relative_to(tmp_path) for folder in folders] == [
        Path("models"),
        Path("training_sets"),
        Path("trainings"),
    ]
    assert (paths.starter_folder() / "sammix.json").is_file()


def test_json_nested_beyond_all_bounds_is_damaged_wherever_it_is_read(tmp_path):
    """Python's parser gives up with an error of its own there."""
    place = Place(tmp_path, "x")
    place.record.parent.mkdir()
    for path in (tmp_path / "x.json", tmp_path / "sammix.json", tmp_path / "training_set.json", place.record):
        path.write_text("[" * 100_000)
    assert read_record(place) is None
    for read in (
        read_config,
        read_recipe,
        lambda path: read_protocol(str(path)),
        lambda path: open_bundle(path.parent),
        lambda path: TrainingSet.open(path.parent),
    ):
        with pytest.raises(SAMMixError, match="nested too deeply"):
            read(tmp_path / "x.json")


@pytest.mark.parametrize("kind", ["dense", "encrypted", "cut", "of another kind"])
def test_zip_files_that_are_none_of_ours_are_refused_and_leave_nothing(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path / "home"))
    source = tmp_path / "in.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sammix.json", bytes(50 << 20) if kind == "dense" else b"{}" * 100)
    content = bytearray(source.read_bytes())
    if kind == "encrypted":
        for place in (6, content.index(b"PK\x01\x02") + 8):
            content[place] |= 1
    elif kind == "of another kind":  # a way of packing that zipfile does not know
        for place in (8, content.index(b"PK\x01\x02") + 10):
            content[place] = 97
    source.write_bytes(content[:-30] if kind == "cut" else content)
    for read in (import_model, lambda path: TrainingSet.import_(path, tmp_path / "set")):
        with pytest.raises(SAMMixError, match=r"in\.zip: not a readable zip file of a"):
            read(source)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file != source]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_who_may_read_a_new_file_may_read_one_of_a_new_folder(tmp_path):
    """Safetensors and mkdtemp make files and folders that only their owner can read."""
    usual = tmp_path / "usual"
    usual.touch()
    with atomic_folder(tmp_path / "model") as beside:
        (beside / "adapter").mkdir()
        private = beside / "adapter" / "weights"
        private.touch(mode=0o600)
    model = tmp_path / "model"
    assert (model / "adapter" / "weights").stat().st_mode == usual.stat().st_mode
    assert [path.name for path in model.rglob("*")] == ["adapter", "weights"]
    assert model.stat().st_mode & 0o777 == 0o755
