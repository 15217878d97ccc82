"""The models on this machine: what needs no torch, with the starter as the model at hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from SAMMixLib.cli import main
from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.card import CARD, FILES, open_bundle, verify_bundle
from SAMMixLib.models.registry import (
    NameRefused,
    export_model,
    find_model,
    import_model,
    installed_models,
    remove_model,
)
from SAMMixLib.paths import starter_folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_an_exported_model_comes_back_whole(tmp_path):
    archive = export_model("starter", tmp_path / "mine.zip")
    imported = import_model(archive, "again")
    verify_bundle(imported)
    assert imported.card == open_bundle(starter_folder()).card | {"name": "again"}
    assert [folder.name for folder in installed_models()] == ["starter", "again"]
    remove_model("again")
    assert [folder.name for folder in installed_models()] == ["starter"]


def test_an_export_holds_the_bundle_alone(tmp_path):
    copy = import_model(starter_folder(), "copy").folder
    (copy / "notes.txt").write_text("patient names")
    with zipfile.ZipFile(export_model("copy", tmp_path / "copy.zip")) as archive:
        assert sorted(archive.namelist()) == sorted(f"copy/{name}" for name in (CARD, *FILES))


def test_a_damaged_model_is_not_exported(tmp_path):
    copy = import_model(starter_folder(), "copy").folder
    (copy / FILES[0]).write_bytes(b"damage")
    with pytest.raises(SAMMixError, match="changed since it was written"):
        export_model("copy", tmp_path / "copy.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_a_failed_export_leaves_nothing(tmp_path):
    with pytest.raises(SAMMixError, match=r"mine\.zip: cannot be written"):
        export_model("starter", tmp_path / "nowhere" / "mine.zip")
    with pytest.raises(SAMMixError, match=r"\.zip"):
        export_model("starter", tmp_path / "mine.tar")
    with pytest.raises(SAMMixError, match="no model of this name"):
        export_model("nobody", tmp_path / "mine.zip")
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]


@pytest.mark.parametrize("member", ["../outside.txt", "/outside.txt"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path, home, member):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(member, "outside")
    with pytest.raises(SAMMixError, match="holds 0 model bundles"):
        import_model(tmp_path / "evil.zip")
    assert not list(tmp_path.rglob("outside.txt")) and not list((home / "models").iterdir())


def test_a_newer_or_broken_card_is_refused_and_not_kept(tmp_path, home):
    broken = shutil.copytree(starter_folder(), tmp_path / "broken")
    card = json.loads((broken / CARD).read_text()) | {"schema": 99}
    (broken / CARD).write_text(json.dumps(card))
    with pytest.raises(SAMMixError, match="newer"):
        import_model(broken, "broken")
    assert not list((home / "models").iterdir())


def test_names_that_would_leave_the_folder_are_refused(home):
    for name in ("../elsewhere", ".hidden", "starter"):
        with pytest.raises(NameRefused, match="give it another name") as refused:
            import_model(starter_folder(), name)
        assert refused.value.name == name and refused.value.taken == (name == "starter")
    with pytest.raises(SAMMixError, match="only models in"):
        remove_model("starter")
    assert find_model("starter") == starter_folder()


def test_the_command_exports(tmp_path, capsys):
    assert main(["models", "export", "starter", str(tmp_path / "out.zip")]) == 0
    assert zipfile.is_zipfile(tmp_path / "out.zip") and "MB" in capsys.readouterr().out


def test_models_are_managed_without_torch(tmp_path):
    code = f"""
import sys
from pathlib import Path
from SAMMixLib.models.registry import export_model, import_model, remove_model
archive = export_model("starter", Path({str(tmp_path)!r}) / "a.zip")
import_model(archive, "a")
remove_model("a")
assert not {{"torch", "safetensors"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_imported_model_goes_by_its_new_name_and_a_damaged_one_hides_no_other(home, capsys):
    assert import_model(starter_folder(), "mine").name == "mine"
    damaged = shutil.copytree(starter_folder(), home / "models" / "damaged")
    (damaged / CARD).write_text("{")
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert "mine " in listed and "starter " in listed and f"damaged: {damaged}" in listed


def test_a_home_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path / "file"))
    assert main(["models", "import", str(starter_folder()), "--name", "mine"]) == 2
    assert "SAMMIX_HOME" in capsys.readouterr().err
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path))
    assert main(["models", "import", str(starter_folder()), "--name", "starter"]) == 2
    assert "starter: a model of this name exists; give it another name with --name" in capsys.readouterr().err
    assert main(["models", "list"]) == 0 and "starter" in capsys.readouterr().out
