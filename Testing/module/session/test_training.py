"""The training behind the tab Train, with a worker that is played; and how tab and model list look."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from test_collecting import PlayedSource, Table, finish
from test_session import Bench as SessionBench
from test_session import Clock, PlayedCase, PlayedUser, PlayedWorker, segmented

from SAMMixLib.module.session.collecting import Collector
from SAMMixLib.module.session.model_list import rows
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.module.session.train_view import look
from SAMMixLib.module.session.training import State, Training, new_name
from SAMMixLib.paths import models_folder, starter_folder, trainings_folder
from SAMMixLib.structure import LIVER
from SAMMixLib.worker.client import LogLine
from SAMMixLib.worker.protocol import Load, Loaded, Progressed, Reported, Stage, Suggest, Suggested, Train, Trained

UI = Path(__file__).resolve().parents[3] / "SAMMix" / "Resources" / "UI" / "SAMMix.ui"


class Bench:
    """A training with all that it is wired to, and a set that it can learn from."""

    def __init__(self, folder: Path):
        self.folder, self.user, self.clock, self.store = folder, PlayedUser(), Clock(), Table()
        self.settings = Settings(self.store)
        self.workers: list[PlayedWorker] = []
        self.collector = Collector(self.settings)
        self.collector.take(PlayedSource(), [0, 4, 5, 6], "edited")
        finish(self.collector)
        self.training = self.open()

    def open(self) -> Training:
        """As the application does when it starts."""
        return Training(self.new_worker, self.user, self.settings, self.clock)

    def new_worker(self):
        self.workers.append(PlayedWorker(self.folder))
        return self.workers[-1]

    @property
    def worker(self):
        return self.workers[-1]

    def begin(self, name="mine"):
        self.training.train(self.collector.set, "starter", "quick", name)

    def run(self):
        self.begin()
        self.worker.hello()
        self.training.tick()

    def report(self, step, **figures):
        self.worker.say(Reported(step, 100, **figures))
        self.training.tick()

    def finish(self, **changed):
        run = trainings_folder() / "mine"
        shutil.copytree(starter_folder(), run / "bundle")
        shape = (1, 16, 16)
        np.savez(run / "held_out.npz", images=np.zeros(shape, np.int16),
                 **dict.fromkeys(("reference", "before", "after"), np.ones(shape, np.uint8)))  # fmt: skip
        answer = {"bundle": str(run / "bundle"), "before": 0.9, "after": 0.95, "better": True, "warning": "",
                  "held_out": [("CT-1234", 5)], "pictures": str(run / "held_out.npz"), "seconds": 100.0}  # fmt: skip
        self.worker.say(Trained(**answer | changed))
        self.training.tick()


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path))
    return Bench(tmp_path)


def test_a_training_goes_through_its_states_to_a_model(bench):
    bench.begin()
    assert bench.training.state is State.STARTING
    run = trainings_folder() / "mine" / "run"
    assert bench.worker.requests == [Train(str(bench.collector.set.folder), "starter", "quick", 0, str(run))]
    assert not run.exists(), "a training takes no folder that holds something else"
    bench.worker.hello()
    bench.worker.say(Progressed(Stage.TRAIN, 10, 100))
    bench.training.tick()
    assert bench.training.state is State.RUNNING and bench.training.stage() == ("train", 10, 100)
    bench.clock.now = 5.0
    bench.worker.say(Progressed(Stage.TRAIN, 20, 100))
    bench.training.tick()
    assert bench.training.seconds_left() == pytest.approx(40)
    bench.report(20, loss=1.5)
    bench.finish()
    assert bench.training.state is State.IDLE and bench.worker.closed and not bench.training.error
    assert bench.training.use() == "mine" and bench.settings.model == "mine"
    assert bench.training.message == "From now on, mine segments."
    assert not bench.user.questions and not trainings_folder().joinpath("mine").exists()
    assert (models_folder() / "mine" / "sammix.json").is_file() and bench.training.request is None


@pytest.mark.parametrize(
    ("untick", "words"),
    [((4, 5, 6), "No ticked slice shows the liver"), ((0,), "Every ticked slice"), ((5, 6), "take at least 2")],
)
def test_a_set_that_cannot_teach_is_told_before_anything_starts(bench, untick, words):
    bench.collector.set_active([entry for entry in bench.collector.entries if entry.slice in untick], False)
    bench.begin()
    assert words in bench.training.error and not bench.workers and not trainings_folder().exists()


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "starter"])
def test_a_name_that_no_model_can_have(bench, name):
    bench.begin(name)
    assert "not usable as the name" in bench.training.error and not bench.workers


def test_a_name_that_is_taken(bench):
    shutil.copytree(starter_folder(), models_folder() / "mine")
    bench.begin()
    assert "exists" in bench.training.error and not bench.workers
    first = new_name("liver")
    (models_folder() / first).mkdir()
    assert new_name("liver") == f"{first} 2"


def test_stop_and_resume(bench):
    bench.run()
    bench.report(10, loss=2.0)
    bench.report(20, loss=1.0)
    bench.training.stop()
    assert bench.training.state is State.STOPPING and bench.worker.cancelled == [1]
    bench.worker.fail("cancelled")
    bench.training.tick()
    assert bench.training.unfinished and not bench.training.error
    bench.training.resume()
    assert len(bench.workers) == 2 and bench.workers[1].requests == bench.workers[0].requests
    bench.report(20, loss=1.1)  # again, from the checkpoint on
    bench.report(30, loss=0.9)
    assert [(each["step"], each["loss"]) for each in bench.training.figures] == [(10, 2.0), (20, 1.1), (30, 0.9)]


def test_a_run_that_is_stopped_says_from_where_it_goes_on(bench, tmp_path):
    def told(training):
        stage = SessionBench(tmp_path)
        return look(bench.collector, training, stage.session, None)["trainStatusLabel"]["text"]

    bench.run()
    bench.report(10, loss=2.0)
    bench.training.close()  # before the first checkpoint
    assert bench.training.checkpoint == 0 and "Resume begins with the first step" in told(bench.training)
    bench.training.resume()
    bench.report(10, loss=2.0)
    bench.report(15, validation_dice=0.0)
    assert bench.training.figures[-1] == {"step": 15, "steps": 100, "validation_dice": 0.0}
    bench.report(15, checkpoint=True)
    bench.report(20, loss=1.0)
    bench.training.close()
    for training in (bench.training, bench.open()):
        assert training.checkpoint == 15 and "Resume goes on after step 15 of 100" in told(training)
    bench.training.resume()
    bench.report(20, loss=1.1)
    assert bench.training.checkpoint == 15


def test_stopped_before_it_has_begun(bench):
    bench.begin()
    bench.training.stop()
    assert bench.training.state is State.STOPPING and bench.worker.cancelled == [1]
    bench.worker.hello()
    bench.training.tick()
    assert bench.training.state is State.STOPPING
    bench.worker.fail("cancelled")
    bench.training.tick()
    assert bench.training.unfinished


def test_what_an_older_run_left_under_the_name_goes(bench):
    left = trainings_folder() / "mine" / "plan.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    bench.begin()
    assert bench.training.busy and not left.exists()


@pytest.mark.parametrize("through", [False, True])
def test_a_killed_application_finds_its_training_again(bench, through):
    bench.run()
    bench.report(10, loss=2.0)
    bench.report(20, validation_dice=0.9)
    if through:
        bench.finish()
    again = bench.open()
    assert again.request == bench.training.request and again.figures == bench.training.figures
    assert again.outcome == bench.training.outcome and again.unfinished != through
    if through:
        assert again.use() == "mine"
    else:
        again.resume()
        assert bench.workers[1].requests == bench.workers[0].requests


@pytest.mark.parametrize("anew", [False, True])
def test_a_set_that_has_changed_is_not_resumed_but_begun_anew(bench, anew):
    bench.run()
    bench.training.close()
    bench.collector.take(PlayedSource(), [7], "edited")
    finish(bench.collector)
    bench.user.answer = anew
    bench.training.resume()
    assert "has changed" in bench.user.questions[-1] and len(bench.workers) == 1 + anew
    assert bench.training.unfinished != anew


def test_a_new_training_asks_before_an_unfinished_one_goes(bench):
    bench.run()
    bench.training.close()
    bench.user.answer = False
    bench.begin("other")
    assert "unfinished training of mine" in bench.user.questions[-1] and len(bench.workers) == 1
    bench.user.answer = True
    bench.begin("other")
    assert [folder.name for folder in trainings_folder().iterdir()] == ["other"] and len(bench.workers) == 2


@pytest.mark.parametrize("kind", ["memory", "crash", "disk", "input", "internal", "timeout"])
def test_a_failure_is_told_with_the_log_and_can_be_resumed(bench, kind):
    bench.run()
    bench.worker.alive = kind not in ("crash", "timeout")
    bench.worker.fail(kind, "the disk is full")
    bench.worker.say(LogLine("and more"))
    bench.training.tick()
    assert bench.training.error == "the disk is full" and bench.training.log == bench.worker.log_path
    assert bench.training.unfinished and bench.worker.closed
    bench.training.resume()
    assert not bench.training.error and bench.training.busy


def test_a_model_that_is_not_better_is_used_only_after_a_yes(bench):
    bench.run()
    bench.finish(after=0.89, better=False, warning="It is no better.")
    bench.user.answer = False
    assert bench.training.use() == "" and "It is no better." in bench.user.questions[-1]
    assert bench.settings.model == "starter" and bench.training.outcome
    bench.user.answer = True
    assert bench.training.use() == "mine"


def test_discard_removes_the_run(bench):
    bench.run()
    bench.finish()
    bench.training.discard()
    assert bench.training.outcome is None and not list(trainings_folder().iterdir())


def test_a_damaged_run_is_passed_over(bench):
    bench.run()
    bench.training.close()
    (trainings_folder() / "mine" / "request.json").write_text("{")
    assert bench.open().request is None


# The looks


def test_every_look_fits_the_ui_file(bench, tmp_path):
    widgets = {node.get("name"): node.get("class") for node in ElementTree.parse(UI).iter("widget")}
    stage = SessionBench(tmp_path)
    stage.until_running()
    stage.answer(segmented())

    def looked(case=stage.case):
        return look(bench.collector, bench.training, stage.session, case)

    looks = [look(Collector(Settings(Table())), bench.training, stage.session, None), looked()]
    bench.begin()
    looks.append(looked())
    bench.run()
    assert looks[-1]["trainProgressBar"]["format"] == "Starting"
    assert looked()["trainProgressBar"]["format"] == "Loading the model"
    bench.report(10, loss=2.0)
    bench.worker.say(Progressed(Stage.TRAIN, 10, 100))
    bench.training.tick()
    looks.append(looked())
    assert looks[-1]["trainButton"] == {"text": "Stop", "enabled": True}
    assert looks[-1]["trainProgressBar"]["format"].startswith("Learning, 10 of 100")
    bench.training.close()
    looks.append(looked())
    assert looks[-1]["discardButton"] == {"visible": True, "text": "Discard training"}
    assert (
        looks[-1]["resumeButton"]["visible"] and "begins with the first step" in looks[-1]["trainStatusLabel"]["text"]
    )
    bench.training.resume()
    bench.finish()
    looks.append(looked())
    assert looks[-1]["discardButton"] == {"visible": True, "text": "Discard model"}
    assert looks[-1]["beforeCaption"]["text"].endswith("Before: Dice 0.900")
    assert looks[-1]["outcomeFrame"]["visible"] and "0.900 before, 0.950 now" in looks[-1]["outcomeLabel"]["text"]
    assert bench.training.use() == "mine"
    looks.append(looked())
    assert looks[-1]["trainStatusLabel"] == {"text": "From now on, mine segments.", "visible": True}
    assert looks[-1]["modelNameEdit"]["placeholderText"] == new_name("liver")
    allowed = {
        "QLabel": {"text", "visible"},
        "QLineEdit": {"enabled", "placeholderText"},
        "QProgressBar": {"visible", "value", "format"},
        "QPushButton": {"text", "enabled", "visible"},
        "QCheckBox": {"text"},
        "QSpinBox": {"enabled", "maximum"},
        "QWidget": {"visible"},
    }
    for each in looks:
        assert each.keys() == looks[0].keys() <= widgets.keys()
        for name, properties in each.items():
            assert properties.keys() <= allowed.get(widgets[name], {"enabled"}), name


def test_without_a_segment_no_slice_can_be_taken_for_one_without_liver(bench, tmp_path):
    stage, case = SessionBench(tmp_path), PlayedCase()
    case.has_segment = lambda structure=None: False
    shown = look(bench.collector, bench.training, stage.session, case)
    assert not shown["useSliceButton"]["enabled"] and shown["emptySliceButton"]["enabled"]


def test_a_suggestion_comes_from_the_worker_that_holds_the_scan(tmp_path):
    stage = SessionBench(tmp_path)
    stage.session.suggest(stage.case, [])
    assert "press Segment" in stage.session.error
    stage.segmented()
    stage.session.suggest(stage.case, [2, 5])
    assert stage.worker.requests[-1] == Suggest([2, 5]) and stage.session.correcting
    stage.answer(Progressed(Stage.SEGMENT, 8, 20))
    assert stage.session.looked_at == (8, 20)
    stage.answer(Suggested([7], ["the model is unsure"]))
    assert stage.session.suggested == ("case", 7, "the model is unsure") and not stage.session.busy
    assert stage.session.looked_at is None
    assert len(stage.case.written) == 1 and stage.session.can_correct(stage.case)


def test_nothing_to_suggest_is_said_so(tmp_path):
    stage = SessionBench(tmp_path)
    stage.segmented()
    stage.session.suggest(stage.case, [7])
    stage.answer(Suggested([], []))
    assert "no slice is left" in stage.session.error and not stage.session.suggested and not stage.session.busy
    assert stage.session.can_correct(stage.case)


def test_a_suggestion_has_a_bar_and_what_was_said_goes_with_the_scan(bench, tmp_path):
    stage = SessionBench(tmp_path)

    def shown(**how) -> dict:
        return look(bench.collector, bench.training, stage.session, stage.case, **how)

    stage.segmented()
    assert not shown()["suggestProgressBar"]["visible"]
    assert shown(seeking=True)["suggestProgressBar"]["visible"], "while the scan's name is found"
    stage.session.suggest(stage.case, [])
    stage.answer(Progressed(Stage.SEGMENT, 8, 20))
    bar = shown()["suggestProgressBar"]
    assert bar["visible"] and bar["value"] == 400 and "8 of 20" in bar["format"]
    stage.worker.fail("internal", "no slice is left")
    stage.ticks()
    assert "No slice is left" in shown()["collectLabel"]["text"] and not shown()["suggestProgressBar"]["visible"]
    stage.session.dismiss()
    bench.collector.dismiss()
    assert not shown()["collectLabel"]["visible"]


def test_another_models_result_leaves_what_was_found(tmp_path):
    stage, other = SessionBench(tmp_path), PlayedCase()
    stage.segmented()
    found = stage.session.findings(stage.case)
    stage.session.segment(other, other_model="theirs")
    stage.ticks()
    assert stage.worker.requests[-1] == Load("theirs")
    stage.answer(Loaded("theirs", "cpu", "float32", LIVER.to_dict()))
    stage.answer(segmented())
    assert other.written == [None] and len(stage.case.written) == 1 and not other.shown
    assert stage.session.findings(stage.case) is found and stage.session.settings.model == "starter"
    stage.segmented()
    assert stage.asked()[-2:] == ["Load", "Segment"], "the chosen model comes back"


def test_the_list_of_models_tells_parent_date_and_gain(bench):
    bench.run()
    bench.finish()
    bench.training.use()
    folder = models_folder() / "mine"
    card = json.loads((folder / "sammix.json").read_text())
    card["training"] |= {
        "parent": {"name": "starter", "sha256": card["sha256"]}, "date": "2026-01-31", "before": 0.9, "after": 0.95,
        "data": "12 slices, 5 of them with a mask",
    }  # fmt: skip
    (folder / "sammix.json").write_text(json.dumps(card))
    row = rows()[1]
    assert row.parent == "starter" and rows()[0].parent == ""
    assert "Trained from starter on 2026-01-31" in row.details and "0.900 before, 0.950 after" in row.details
    card["training"]["parent"]["sha256"] = {}
    (folder / "sammix.json").write_text(json.dumps(card))
    assert rows()[1].parent == ""  # what goes by that name now is another model
