"""The tab Models without its widgets, and the comparison of a model with what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_session import Bench, PlayedCase, PlayedUser, Table, segmented

from SAMMixLib.models.registry import NameRefused
from SAMMixLib.module.session.comparing import Comparison
from SAMMixLib.module.session.model_list import COLUMNS, ModelList, look, rows
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.module.texts import name_question
from SAMMixLib.paths import models_folder, starter_folder
from SAMMixLib.structure import LIVER
from SAMMixLib.worker.protocol import Load, Loaded, Progressed, Stage

UI = Path(__file__).resolve().parents[3] / "SAMMix" / "Resources" / "UI" / "SAMMix.ui"


@pytest.fixture
def models(tmp_path, monkeypatch) -> ModelList:
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path))
    user = PlayedUser()
    models = ModelList(Settings(Table()), user.ask)
    models.user = user
    return models


def add(name: str, **training) -> Path:
    """A model of the user's with this in its card's training record."""
    folder = models_folder() / name
    shutil.copytree(starter_folder(), folder)
    card = json.loads((folder / "sammix.json").read_text())
    card["training"] = training
    (folder / "sammix.json").write_text(json.dumps(card))
    return folder


def test_the_scores_of_an_own_model_are_those_of_its_card(models):
    parent = {"name": "starter", "sha256": json.loads((starter_folder() / "sammix.json").read_text())["sha256"]}
    add("ours", parent=parent, before=0.90049, after=0.95, labelled_slices=5)
    starter, ours = rows()
    assert COLUMNS == ("Model", "Trained from", "Dice before", "Dice after")
    assert ours.cells == ("ours", "starter", "0.900", "0.950") and ours.parent == "starter"
    assert starter.cells == ("starter", "", "", "0.931"), "as the README has it"
    assert "0.900 before, 0.950 after" in ours.details and "MB" in ours.details and "slices: 5" in ours.details


def test_the_selection_stays_with_its_model(models):
    add("a"), add("b")
    models.refresh()
    models.select(2)
    assert models.row.name == "b"
    add("aa")
    models.refresh()
    assert models.row.name == "b" and models.selected == 3
    models.select(-1)  # as a table says that is being filled
    assert models.row.name == "starter"
    models.select(3)
    models.delete()
    assert [row.name for row in models.rows] == ["starter", "a", "aa"] and models.row.name == "starter"
    assert models.message == "b is deleted." and "Delete the model b" in models.user.questions[-1]


def test_nothing_is_deleted_after_a_no(models):
    add("a")
    models.refresh()
    models.select(1)
    models.user.answer = False
    models.delete()
    assert [row.name for row in models.rows] == ["starter", "a"] and not models.message


def test_a_chosen_model_that_is_gone_is_chosen_no_longer(models):
    folder = add("a")
    models.choose("a")
    models.refresh()
    assert models.chosen == "a"
    (folder / "sammix.json").write_text("{")
    models.refresh()
    assert models.chosen == "starter" and models.usable == ["starter"]
    assert models.rows[1].cells[1] == "damaged" and not models.rows[1].usable and models.rows[1].removable


def test_a_model_that_was_just_trained_and_chosen_is_listed(models):
    before = models.changes
    models.follow()
    assert models.changes == before
    add("new")
    models._settings.model = "new"  # as a training does
    models.follow()
    assert models.usable == ["starter", "new"] and models.chosen == "new"


def test_a_name_that_is_taken_is_asked_for_again(models, tmp_path):
    for name in ("starter", None, "a/b", "a/b:c"):
        with pytest.raises(NameRefused) as refused:
            models.import_(starter_folder() / "sammix.json", name)
        assert refused.value.name == (name or "starter") and "--name" not in str(refused.value)
        assert refused.value.taken == (name in ("starter", None))
    assert name_question("a/b", taken=False) == "A model cannot have the name a/b. Import it as:"
    models.import_(starter_folder(), "mine")
    assert [row.name for row in models.rows] == ["starter", "mine"] and models.message == "mine is among your models."
    assert models.row.name == "mine", "what was imported is selected"
    assert [models.cells(row)[0] for row in models.rows] == ["starter (in use)", "mine"]
    models.choose("mine")
    assert [models.cells(row)[0] for row in models.rows] == ["starter", "mine (in use)"]
    models.import_(tmp_path / "gone.zip")
    assert "gone.zip" in models.error and not models.message


def test_export_verify_and_the_parent(models, tmp_path):
    models.export(tmp_path / "starter.zip")
    assert (tmp_path / "starter.zip").is_file() and models.message == "Wrote starter.zip."
    models.export(tmp_path / "starter.txt")
    assert ".zip" in models.error and not models.message
    models.verify()
    assert "every file is as it was written" in models.message and not models.error
    parent = {"name": "starter", "sha256": json.loads((starter_folder() / "sammix.json").read_text())["sha256"]}
    add("ours", parent=parent)
    models.refresh()
    models.select(1)
    models.choose("ours")
    models.use_parent()
    assert models.chosen == "starter" and "starter segments" in models.message


class Shelf(Bench):
    """A session with a comparison in it."""

    def __init__(self, folder):
        super().__init__(folder)
        self.other = PlayedCase()
        self.comparison = Comparison(
            self.session, lambda case, name: self.other, lambda case, other: (0.93749, "slice 3")
        )

    def ticks(self, count=6):
        for _ in range(count):
            self.session.tick()
            self.comparison.tick()


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path)


def test_a_comparison_from_click_to_verdict(shelf, models):
    comparison = shelf.comparison
    assert not comparison.may_begin(None) and comparison.text.startswith("Segment a scan first")
    assert not comparison.may_begin(shelf.case)
    shelf.until_running()
    shelf.case.written.append(None)
    assert not comparison.may_begin(shelf.case) and comparison.text.startswith("Wait")
    shelf.answer(segmented())
    assert comparison.may_begin(shelf.case)
    comparison.begin(shelf.case, "theirs")
    assert comparison.running and comparison.text.startswith("Loading the model")
    assert look(models, comparison)["compareModelButton"] == {"enabled": True, "text": "Cancel"}
    assert shelf.worker.requests[-1] == Load("theirs")
    shelf.answer(Loaded("theirs", "cpu", "float32", LIVER.to_dict()))
    shelf.worker.say(Progressed(Stage.SEGMENT, 3, 7))
    shelf.ticks()
    assert comparison.text.startswith("Segmenting, 3 of 7")
    comparison.clear()
    assert comparison.text, "it is on its way"
    shelf.answer(segmented())
    assert not comparison.running and comparison.other is shelf.other
    assert comparison.text.startswith("Dice 0.937 between the scan's segmentation and that of theirs")
    assert look(models, comparison)["compareLabel"] == {"text": comparison.text, "visible": True}
    comparison.clear()
    assert not comparison.text


@pytest.mark.parametrize("kind, words", [("cancelled", "Cancelled."), ("memory", "it failed")])
def test_a_comparison_that_does_not_come_to_its_end(shelf, kind, words):
    shelf.segmented()
    shelf.comparison.begin(shelf.case, "theirs")
    if kind == "cancelled":
        shelf.comparison.cancel()
    shelf.worker.fail(kind)
    shelf.ticks()
    assert not shelf.comparison.running and shelf.comparison.text == words


def test_the_look_fits_the_ui_file(models, shelf):
    widgets = {node.get("name"): node.get("class") for node in ElementTree.parse(UI).iter("widget")}
    allowed = {"QLabel": {"text", "visible"}, "QPushButton": {"text", "enabled", "visible"}}
    for name, properties in look(models, shelf.comparison).items():
        assert properties.keys() <= allowed[widgets[name]], name
