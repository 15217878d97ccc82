"""The session behind the module's buttons, with a worker and a scene that are played."""

from __future__ import annotations

import errno
from pathlib import Path
from xml.etree import ElementTree

import pytest

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.case_state import Findings
from SAMMixLib.module.session.eta import CLASSIFY, SEGMENT, START, WRITE, Paces, Progress, Work
from SAMMixLib.module.session.segment_view import changes, look
from SAMMixLib.module.session.session import Session, State
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.module.texts import duration, result_line, slices
from SAMMixLib.structure import LIVER, SPLEEN, Structure

UI = Path(__file__).resolve().parents[3] / "SAMMix" / "Resources" / "UI" / "SAMMix.ui"
TOTAL = 10


class PlayedWorker:
    """Answers when the test says so."""

    def __init__(self, folder: Path):
        self.folder, self.log_path = folder, folder / "worker.log"
        self.alive, self.closed, self.pid = False, False, None
        self.requests: list[tuple[str, dict]] = []
        self.cancelled: list[int] = []
        self.messages: list[dict] = []

    def start(self):
        self.alive = True

    def request(self, kind, **fields):
        self.requests.append((kind, fields))
        return len(self.requests)

    def poll(self):
        messages, self.messages = self.messages, []
        self.pid = next((message["pid"] for message in messages if message["type"] == "hello"), self.pid)
        return messages

    def cancel(self, request):
        self.cancelled.append(request)

    def close(self):
        self.alive, self.closed = False, True

    def say(self, type_, **fields):
        self.messages.append({"type": type_, **fields})

    def answer(self, **fields):
        self.say("result", id=len(self.requests), **fields)

    def fail(self, kind, message="it failed"):
        self.say("error", id=len(self.requests), kind=kind, message=message, log=str(self.log_path))


class PlayedCase:
    def __init__(self):
        self.key, self.problem, self.drawn, self.corrections, self.written = "case", "", [], [], []
        self.shown = self.exported = 0
        self.version = ""
        self.structure = LIVER
        self.disk_full = False
        self.present = self.exact = True
        self.masks, self.mm2, self.counted = [], [0.0] * TOTAL, 0

    def check(self):
        return not self.problem, self.problem, []

    def size(self):
        return TOTAL, 5.0 * TOTAL

    def current_slice(self):
        return 4

    def has_segment(self, structure=None):
        return bool(self.written)

    def edited_slices(self):
        return sorted({*self.drawn, *self.corrections})

    def drawn_slices(self):
        return self.drawn

    def export(self, path):
        if self.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        yield
        self.exported += 1

    def write(self, mask, slices):
        yield
        self.written.append(slices)
        self.masks.append(mask.name)
        self.version = f"{len(self.written)}"
        return self.exact

    def write_slices(self, mask, slices):
        exact = yield from self.write(mask, slices)
        self.corrections += slices
        return exact

    def areas(self):
        if self.mm2 is None:
            self.counted += 1
            self.mm2 = [0.0, *[1000.0] * (TOTAL - 1)]
        return self.mm2

    def take_areas(self, areas):
        self.mm2 = areas

    def show(self, findings):
        self.shown += 1
        yield


class PlayedUser:
    def __init__(self):
        self.questions, self.answer = [], True

    def ask(self, question):
        self.questions.append(question)
        return self.answer


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Table(dict):
    def value(self, key, default):
        return self.get(key, default)

    def setValue(self, key, value):
        self[key] = value


class Stage:
    """A session with all that it is wired to."""

    def __init__(self, folder: Path):
        self.user, self.case, self.clock, self.store = PlayedUser(), PlayedCase(), Clock(), Table()
        self.workers: list[PlayedWorker] = []
        self.session = Session(lambda: self.new_worker(folder), self.user, Settings(self.store), self.clock)

    def new_worker(self, folder):
        self.workers.append(PlayedWorker(folder))
        return self.workers[-1]

    @property
    def worker(self):
        return self.workers[-1]

    def ticks(self, count=6):
        for _ in range(count):
            self.session.tick()

    def until_running(self, slices=None, structure: Structure = LIVER):
        self.session.segment(self.case, slices)
        self.worker.say("hello", pid=1, versions={}, devices=[{"name": "cpu", "text": "CPU, 2 threads"}])
        self.ticks()
        if self.worker.requests[-1][0] == "load":
            self.worker.answer(
                name="starter", device="cpu", device_text="CPU", dtype="float32", structure=structure.to_dict()
            )
        self.ticks()

    def segmented(self, slices=None):
        self.until_running(slices)
        self.worker.answer(**segmented(slices))
        self.ticks()


def segmented(slices=None):
    ks = range(TOTAL) if slices is None else slices
    return {
        "mask": "mask.nrrd", "cam": "cam.nrrd", "boxes": {str(k): [[1, 2, 30, 40]] for k in ks},
        "p_liver": [0.9 for _ in ks], "predicted_iou": [0.8 for _ in ks], "area_mm2": [1000.0 * (k > 0) for k in ks],
        "volume_ml": 45.0, "slice_range": [1, 9], "review": [7, 2], "seconds": 3.0, "warnings": [], "device": "cpu",
        "slices_total": TOTAL,
    }  # fmt: skip


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Stage(tmp_path)


def test_a_run_goes_through_its_states_and_ends_in_the_scene(stage):
    session, case = stage.session, stage.case
    session.segment(case)
    assert session.state is State.STARTING
    stage.worker.say("hello", pid=1, versions={}, devices=[{"name": "cpu", "text": "CPU, 2 threads"}])
    session.tick()
    assert session.state is State.LOADING
    assert stage.worker.requests == [("load", {"model": "starter", "device": "auto"})]
    stage.ticks()
    stage.worker.answer(name="starter", device="cpu", device_text="CPU", dtype="float32", structure=LIVER.to_dict())
    session.tick()
    assert session.state is State.RUNNING
    kind, fields = stage.worker.requests[-1]
    assert (kind, fields["slices"]) == ("segment", None)
    assert case.exported == 1
    stage.worker.answer(**segmented())
    stage.ticks()
    assert session.state is State.IDLE and not session.error
    assert case.written == [None] and case.shown == 1
    assert session.found["case"].volume_ml == pytest.approx(45.0)
    assert result_line(session.found["case"]) == "Liver 45 ml, slices 1 to 9 of 10"


def test_a_warm_worker_is_not_loaded_again(stage):
    stage.segmented()
    stage.segmented()
    assert [kind for kind, _ in stage.worker.requests] == ["load", "segment", "segment"]
    assert len(stage.workers) == 1
    stage.session.settings.model = "mine"
    stage.until_running()
    assert [kind for kind, _ in stage.worker.requests][-2:] == ["load", "segment"]


def test_a_model_of_another_structure_writes_its_own_segment(stage):
    stage.segmented()
    stage.session.settings.model = "spleens"
    stage.until_running([7], SPLEEN)
    assert stage.case.structure == LIVER, "as long as nothing is written"
    stage.worker.answer(**segmented([7]))
    stage.ticks()
    assert stage.case.structure == SPLEEN
    assert list(stage.session.found["case"].boxes) == [7], "what was found of the liver is not the spleen's"


@pytest.mark.parametrize("ticks", [0, 1, 8])
def test_cancel_leaves_the_scene_as_it_was(stage, ticks):
    stage.session.segment(stage.case)
    stage.ticks(ticks)
    stage.session.cancel()
    assert stage.session.state is State.CANCELLING
    assert stage.worker.cancelled == [1]
    stage.worker.fail("cancelled")
    stage.ticks()
    assert stage.session.state is State.IDLE and not stage.session.error
    assert not stage.case.written
    stage.segmented()
    assert stage.case.written == [None]


def test_a_result_that_overtakes_the_cancel_is_not_written(stage):
    stage.until_running()
    stage.session.cancel()
    stage.worker.answer(**segmented())
    stage.ticks()
    assert stage.session.state is State.IDLE and not stage.case.written


@pytest.mark.parametrize("kind", ["memory", "crash", "disk", "input", "internal", "timeout"])
def test_a_failure_is_told_with_the_log_and_the_next_run_works(stage, kind):
    stage.until_running()
    stage.worker.alive = kind not in ("crash", "timeout")
    stage.worker.fail(kind, "the model ran out of memory; choose the CPU")
    stage.ticks()
    assert stage.session.state is State.IDLE
    assert stage.session.error == "the model ran out of memory; choose the CPU"
    assert stage.session.log == stage.worker.log_path
    assert not stage.case.written
    stage.segmented()
    assert stage.case.written == [None] and not stage.session.error


def test_a_worker_that_dies_while_idle_is_replaced_at_the_next_run(stage):
    stage.segmented()
    stage.worker.alive = False
    stage.worker.say("error", id=None, kind="crash", message="it ended", log="")
    stage.ticks()
    assert not stage.session.error and not stage.session.can_correct(stage.case)
    stage.segmented()
    assert len(stage.workers) == 2 and stage.workers[0].closed


def test_a_full_disk_is_told_and_the_run_given_up(stage):
    stage.case.disk_full = True
    stage.session.segment(stage.case)
    stage.ticks()
    assert stage.session.error.startswith("No space left on device")
    assert stage.session.state is State.IDLE
    assert stage.worker.cancelled == [1]


def test_an_error_in_the_scene_is_one_line(stage):
    def refuse(mask, slices):
        raise SAMMixError("the segmentation holds surfaces; choose another")
        yield

    stage.case.write = refuse
    stage.segmented()
    assert stage.session.error == "the segmentation holds surfaces; choose another"
    assert stage.session.state is State.IDLE and "case" not in stage.session.found


def test_a_volume_that_cannot_be_segmented_starts_nothing(stage):
    stage.case.problem = "photo: 3 values a voxel; choose one 3D CT volume."
    stage.session.segment(stage.case)
    assert stage.session.error == stage.case.problem
    assert not stage.workers and not stage.session.busy


def test_edits_are_kept_or_replaced_as_the_user_says(stage):
    stage.segmented()
    stage.case.drawn = [3, 4]
    stage.segmented()
    assert "slices 3 to 4" in stage.user.questions[-1]
    assert stage.case.written[-1] == [0, 1, 2, 5, 6, 7, 8, 9]
    stage.user.answer = False
    stage.segmented()
    assert stage.case.written[-1] is None


def test_an_edit_made_during_the_run_is_never_overwritten(stage):
    stage.until_running()
    stage.case.drawn = [5]
    stage.worker.answer(**segmented())
    stage.ticks()
    assert not stage.user.questions
    assert 5 not in stage.case.written[-1]


def test_one_slice_alone(stage):
    stage.segmented(slices=[4])
    assert stage.worker.requests[-1][1]["slices"] == [4]
    assert stage.case.written == [[4]]
    assert set(stage.session.found["case"].p_liver) == {4}
    stage.segmented()
    stage.segmented(slices=[4])
    assert set(stage.session.found["case"].p_liver) == set(range(TOTAL))


def corrected(k, boxes=((5, 6, 50, 60),)):
    return {"mask": "mask.nrrd", "slices": [k], "boxes": {str(k): [list(box) for box in boxes]},
            "predicted_iou": [0.95], "area_mm2": [1200.0]}  # fmt: skip


def test_areas_that_the_worker_counted_are_not_counted_again(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(5, 6, 50, 60)]})
    stage.worker.answer(**corrected(7))
    stage.ticks()
    areas = stage.session.found["case"].area_mm2
    assert not stage.case.counted and areas == dict.fromkeys(range(TOTAL), 1000.0) | {0: 0.0, 7: 1200.0}


def test_areas_are_counted_where_something_was_masked(stage):
    stage.case.exact = False
    stage.until_running()
    stage.worker.answer(**segmented())
    stage.case.mm2 = None
    stage.ticks()
    assert stage.case.counted == 1 and stage.session.found["case"].volume_ml == pytest.approx(45.0)


def test_the_areas_of_kept_slices_are_those_of_the_segment(stage):
    stage.segmented()
    stage.case.drawn, stage.case.mm2 = [3], [700.0 if k == 3 else area for k, area in enumerate(stage.case.mm2)]
    stage.segmented()
    assert stage.session.found["case"].area_mm2[3] == 700 and not stage.case.counted


def test_a_dragged_box_is_segmented_again_from_the_cache(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(5, 6, 50, 60)]})
    assert stage.worker.requests[-1] == ("resegment", {"slices": [{"k": 7, "boxes": [[5, 6, 50, 60]]}]})
    assert stage.session.correcting
    stage.worker.answer(**corrected(7))
    stage.ticks()
    findings = stage.session.found["case"]
    assert stage.case.written[-1] == [7]
    assert findings.boxes[7] == [(5, 6, 50, 60)] and findings.review == [2] and findings.corrected == {7}


def test_undo_brings_the_boxes_back(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(5, 6, 50, 60)]})
    stage.worker.answer(**corrected(7))
    stage.ticks()
    for version, box, ks in (("1", (1, 2, 30, 40), set()), ("2", (5, 6, 50, 60), {7})):
        stage.case.version = version
        stage.session.measure(stage.case)
        findings = stage.session.found["case"]
        assert findings.boxes[7] == [box] and findings.corrected == ks and (7 in findings.review) == (not ks)


def test_corrections_that_come_during_a_correction_are_made_together(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(1, 1, 2, 2)]})
    stage.session.correct(stage.case, {7: []})
    stage.session.correct(stage.case, {2: None})
    stage.worker.answer(**corrected(7))
    stage.ticks()
    assert stage.worker.requests[-1][1]["slices"] == [{"k": 7, "boxes": []}, {"k": 2, "boxes": None}]


def test_a_box_that_is_dragged_during_a_run_does_not_disturb_it(stage):
    stage.segmented()
    stage.until_running()
    stage.session.correct(stage.case, {7: [(1, 1, 2, 2)]})
    assert stage.session.state is State.RUNNING and not stage.session.error
    stage.worker.answer(**segmented())
    stage.ticks()
    assert len(stage.case.written) == 2 and stage.worker.requests[-1][0] == "segment"


def test_a_slice_edited_by_hand_is_segmented_again_only_after_a_yes(stage):
    stage.segmented()
    stage.case.drawn, stage.user.answer = [7], False
    stage.session.correct(stage.case, {7: []})
    assert stage.worker.requests[-1][0] == "segment" and stage.user.questions
    stage.user.answer = True
    stage.session.correct(stage.case, {7: []})
    assert stage.worker.requests[-1][0] == "resegment"


def test_corrected_slices_count_as_edits_of_the_next_run(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: []})
    stage.worker.answer(**corrected(7, ()))
    stage.ticks()
    stage.segmented()
    assert "slice 7" in stage.user.questions[-1]
    assert 7 not in stage.case.written[-1]
    assert stage.session.found["case"].boxes[7] == []


def test_what_the_worker_no_longer_holds_cannot_be_corrected(stage):
    stage.segmented()
    stage.case.key = "another"
    stage.session.correct(stage.case, {1: []})
    assert "press Segment Liver" in stage.session.error
    stage.case.key = "case"
    stage.session.unload()
    assert stage.worker.closed and not stage.session.can_correct(stage.case)


def test_closing_the_scene_ends_the_run_and_forgets(stage):
    stage.until_running()
    stage.session.forget()
    assert stage.worker.closed and stage.session.state is State.IDLE
    stage.segmented()
    stage.session.forget()
    assert not stage.session.found


def test_estimates_learn_from_the_last_run():
    paces = Paces(Settings(Table()))
    work = Work(100, 400.0)
    before = paces.expect("cpu", "starter", work)
    assert before[START] == 0 and before[SEGMENT] > before[CLASSIFY]
    paces.learn("cpu", "starter", work, {CLASSIFY: 2.0, SEGMENT: 30.0, WRITE: 1.0, START: 0.3})
    assert paces.expect("cpu", "starter", work) == pytest.approx({START: 0, CLASSIFY: 2, SEGMENT: 30, WRITE: 1})
    assert paces.expect("cpu", "starter", Work(50, 200.0))[SEGMENT] == pytest.approx(15)
    assert paces.expect("cuda:0", "starter", work)[SEGMENT] < 30


def test_progress_counts_down():
    progress = Progress({START: 10.0, CLASSIFY: 10.0, SEGMENT: 20.0, WRITE: 0.0}, started=0.0)
    seen = [(progress.fraction(5.0), progress.seconds_left(5.0))]
    for now, stage, done in ((10, CLASSIFY, 5), (15, CLASSIFY, 10), (20, SEGMENT, 1), (40, SEGMENT, 10)):
        progress.update(now, stage, done, 10)
        seen.append((progress.fraction(now), progress.seconds_left(now)))
    fractions, left = zip(*seen, strict=True)
    assert list(fractions) == sorted(fractions) and fractions[-1] <= 0.99
    assert list(left) == sorted(left, reverse=True) and left[-1] == 0
    assert progress.finish(41.0) == {START: 10, CLASSIFY: 10, SEGMENT: 21}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (7.4, "7 s"), (43, "45 s"), (61, "1 min"), (84, "1 min 20 s"), (1000, "16 min")]
)
def test_times_as_one_says_them(seconds, text):
    assert duration(seconds) == text


def test_slices_as_one_says_them():
    assert slices([3]) == "slice 3"
    assert slices([9, 3, 4, 5]) == "slices 3 to 5, 9"


def test_every_look_fits_the_ui_file(stage):
    """Names of widgets, and properties that those widgets have, in every state."""
    widgets = {node.get("name"): node.get("class") for node in ElementTree.parse(UI).iter("widget")}
    looks = [look(stage.session, None), look(stage.session, stage.case)]
    stage.until_running()
    looks.append(look(stage.session, stage.case))
    stage.worker.answer(**segmented())
    stage.ticks()
    looks.append(look(stage.session, stage.case))
    text = {"QLabel": {"text", "visible"}, "QProgressBar": {"visible", "value", "format"}}
    button = {"text", "enabled", "visible", "toolTip"}
    for each in looks:
        assert each.keys() == looks[0].keys() <= widgets.keys()
        for name, properties in each.items():
            known = text.get(widgets[name], button if widgets[name] == "QPushButton" else {"enabled", "visible"})
            assert properties.keys() <= known, name


def test_the_button_says_what_it_does(stage):
    assert not look(stage.session, None)["segmentButton"]["enabled"]
    before = look(stage.session, stage.case)
    assert before["segmentButton"]["text"] == "Segment Liver"
    assert "for this scan" in before["estimateLabel"]["text"]
    stage.until_running()
    stage.worker.say("progress", id=2, stage=SEGMENT, done=3, total=7)
    stage.ticks(1)
    during = look(stage.session, stage.case)
    assert during["segmentButton"]["text"] == "Cancel" and during["segmentButton"]["enabled"]
    assert during["progressBar"]["format"].startswith("Segmenting, 3 of 7")
    stage.session.cancel()
    assert not look(stage.session, stage.case)["segmentButton"]["enabled"]
    assert changes(before, before) == {}
    assert "segmentButton" in changes(before, during)


def test_findings_of_an_empty_scan():
    message = segmented() | {"area_mm2": [0.0] * TOTAL, "volume_ml": 0.0, "slice_range": None}
    findings = Findings.from_message(message, None, 5.0)
    assert result_line(findings) == "No liver found."
    p, area = findings.curves()
    assert p.shape == area.shape == (TOTAL,)
