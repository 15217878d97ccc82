"""The session behind the module's buttons, with a worker and a scene that are played."""

from __future__ import annotations

import errno
from pathlib import Path
from xml.etree import ElementTree

import pytest

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.case_state import Findings
from SAMMixLib.module.session.eta import CLASSIFY, SEGMENT, START, WRITE, Paces, RunClock, Work
from SAMMixLib.module.session.segment_view import changes, correct_look, look
from SAMMixLib.module.session.session import Session, State
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.module.texts import CANCEL, KEEP, NEW_SEGMENTATION, REPLACE, duration, result_line, sentence, slices
from SAMMixLib.structure import LIVER, SPLEEN, Structure
from SAMMixLib.worker.client import LogLine
from SAMMixLib.worker.protocol import (
    ErrorKind,
    Failed,
    Hello,
    Load,
    Loaded,
    Message,
    Progressed,
    Request,
    Resegment,
    Resegmented,
    Segment,
    Segmented,
    SliceBoxes,
    Stage,
)

UI = Path(__file__).resolve().parents[3] / "SAMMix" / "Resources" / "UI" / "SAMMix.ui"
TOTAL = 10


class PlayedWorker:
    """Answers when the test says so."""

    def __init__(self, folder: Path):
        self.folder, self.log_path = folder, folder / "worker.log"
        self.alive, self.closed, self.pid = False, False, None
        self.requests: list[Request] = []
        self.cancelled: list[int] = []
        self.messages: list[tuple[int | None, Message]] = []

    def start(self):
        self.alive = True

    def request(self, request):
        self.requests.append(request)
        return len(self.requests)

    def poll(self):
        messages, self.messages = self.messages, []
        self.pid = next((message.pid for _, message in messages if isinstance(message, Hello)), self.pid)
        return messages

    def cancel(self, number):
        self.cancelled.append(number)

    def close(self):
        self.alive, self.closed = False, True

    def hello(self):
        self.messages.append((None, HELLO))

    def say(self, message):
        """Something about the last request."""
        self.messages.append((len(self.requests), message))

    def fail(self, kind, message="it failed"):
        self.say(Failed(ErrorKind(kind), message, str(self.log_path)))

    def die(self, kind="crash", message="it ended"):
        """As the client tells it where nothing was asked."""
        self.alive = False
        self.messages.append((None, Failed(ErrorKind(kind), message)))


HELLO = Hello(1, {}, [{"name": "cpu", "text": "CPU, 2 threads"}])


class PlayedCase:
    def __init__(self):
        self.key, self.problem, self.drawn, self.corrections, self.written = "case", "", [], [], []
        self.name, self.owner, self.corrected_in = "scan", "", {}
        self.shown = self.exported = 0
        self.structure, self.versions = LIVER, {}
        self.disk_full = False
        self.present = self.exact = True
        self.masks, self.mm2, self.counted = [], [0.0] * TOTAL, 0

    @property
    def version(self):
        return self.versions.get(self.structure.code, "")

    @version.setter
    def version(self, version):
        self.versions[self.structure.code] = version

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

    def corrected_slices(self):
        return sorted({*self.drawn, *self.corrected_in.get(self.version, [])})

    def foreign_owner(self):
        return self.owner

    def renew(self):
        self.owner, self.drawn, self.corrections = "", [], []

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
        self.corrected_in[self.version] = slices
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
        self.questions, self.answer, self.choice = [], True, KEEP

    def ask(self, question):
        self.questions.append(question)
        return self.answer

    def choose(self, question):
        self.questions.append(question.text)
        self.choices = question.choices
        assert self.choice in question.choices
        return self.choice


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Table(dict):
    def value(self, key, default):
        return self.get(key, default)

    def setValue(self, key, value):
        self[key] = value


class Bench:
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
        self.worker.hello()
        self.ticks()
        self.load(structure)

    def load(self, structure: Structure = LIVER):
        if isinstance(self.worker.requests[-1], Load):
            self.worker.say(Loaded("starter", "cpu", "float32", structure.to_dict()))
        self.ticks()

    def answer(self, message):
        """The worker answers the last request, and the session does what there is to do."""
        self.worker.say(message)
        self.ticks()

    def segmented(self, slices=None):
        self.until_running(slices)
        self.answer(segmented(slices))

    def asked(self) -> list[str]:
        return [type(request).__name__ for request in self.worker.requests]


def segmented(slices=None, **changed) -> Segmented:
    ks = range(TOTAL) if slices is None else slices
    fields = {
        "mask": "mask.nrrd", "cam": "cam.nrrd", "boxes": {k: [(1, 2, 30, 40)] for k in ks},
        "p_liver": [0.9 for _ in ks], "predicted_iou": [0.8 for _ in ks], "area_mm2": [1000.0 * (k > 0) for k in ks],
        "volume_ml": 45.0, "slice_range": (1, 9), "review": [7, 2], "device": "cpu", "slices_total": TOTAL,
        "model": "starter",
    }  # fmt: skip
    return Segmented(**fields | changed)


@pytest.mark.parametrize(("slices", "kept"), [([3], ["whole", "one"]), (None, ["one"])])
def test_a_warning_of_the_whole_scan_outlives_a_run_of_one_slice(slices, kept):
    before = Findings.from_answer(segmented(warnings=["whole"]), None, 5.0)
    after = Findings.from_answer(segmented(slices, warnings=["one"]), slices, 5.0)
    after.keep(before, {1, 2})
    assert after.warnings == kept


@pytest.fixture
def stage(tmp_path) -> Bench:
    return Bench(tmp_path)


def test_a_run_goes_through_its_states_and_ends_in_the_scene(stage):
    session, case = stage.session, stage.case
    session.segment(case)
    assert session.state is State.STARTING
    stage.worker.hello()
    session.tick()
    assert session.state is State.LOADING
    assert stage.worker.requests == [Load()]
    stage.ticks()
    stage.load()
    assert session.state is State.RUNNING
    assert stage.worker.requests[-1] == Segment(str(stage.worker.folder / "volume.nrrd"))
    assert case.exported == 1
    stage.answer(segmented())
    assert session.state is State.IDLE and not session.error
    assert case.written == [None] and case.shown == 1
    assert session.findings(case).volume_ml == pytest.approx(45.0)
    assert result_line(session.findings(case)) == "Liver 45 ml, slices 1 to 9 of 10"


def test_a_warm_worker_is_not_loaded_again(stage):
    stage.segmented()
    stage.segmented()
    assert stage.asked() == ["Load", "Segment", "Segment"]
    assert len(stage.workers) == 1
    stage.session.settings.model = "mine"
    stage.until_running()
    assert stage.asked()[-2:] == ["Load", "Segment"]


def test_a_model_of_another_structure_writes_its_own_segment(stage):
    stage.segmented()
    stage.session.settings.model = "spleens"
    stage.until_running([7], SPLEEN)
    assert stage.case.structure == LIVER, "as long as nothing is written"
    stage.answer(segmented([7]))
    assert stage.case.structure == SPLEEN
    assert list(stage.session.findings(stage.case).boxes) == [7], "what was found of the liver is not the spleen's"


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
    stage.answer(segmented())
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
    stage.worker.die()
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
    assert stage.session.state is State.IDLE and stage.session.findings(stage.case) is None


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
    stage.user.choice = REPLACE
    stage.segmented()
    assert stage.case.written[-1] is None
    stage.user.choice = CANCEL
    asked = stage.asked()
    stage.session.segment(stage.case)
    assert not stage.session.busy and stage.asked() == asked and not stage.session.error


def test_where_all_that_is_asked_for_is_edited_there_is_nothing_to_keep(stage):
    stage.segmented()
    stage.case.drawn, stage.user.choice = [3, 4], CANCEL
    stage.session.segment(stage.case, [3])
    assert stage.user.choices == (REPLACE, CANCEL) and not stage.session.busy
    stage.user.choice = REPLACE
    stage.segmented([3])
    assert stage.case.written[-1] == [3]
    stage.user.choice = KEEP
    stage.segmented([4, 5])
    assert stage.user.choices == (KEEP, REPLACE, CANCEL) and stage.case.written[-1] == [5]


def test_an_edit_made_during_the_run_is_never_overwritten(stage):
    stage.until_running()
    stage.case.drawn = [5]
    stage.answer(segmented())
    assert not stage.user.questions
    assert 5 not in stage.case.written[-1]


def test_a_scan_that_is_removed_ends_its_run_at_once(stage):
    for ticks in (0, 8):
        stage.session.segment(stage.case)
        stage.worker.hello()
        stage.ticks(ticks)
        stage.case.present = False
        stage.ticks(1)
        assert stage.session.state is State.IDLE and "removed" in stage.session.error
        assert stage.worker.cancelled[-1] == len(stage.worker.requests), "the worker need not end it"
        stage.case.present = True
        stage.worker.fail("cancelled")
        stage.ticks()
    stage.segmented()
    assert stage.case.written == [None] and not stage.session.error


def test_findings_belong_to_the_segmentation_and_to_what_it_holds(stage):
    session, case = stage.session, stage.case
    stage.segmented()
    found = session.findings(case)
    assert found.by_model and found.boxes and session.can_correct(case)

    case.mm2 = [0.0] * TOTAL  # the user erases it all
    assert session.findings(case).volume_ml == 0

    case.version, case.mm2 = "", [500.0] * TOTAL  # another segmentation of the scan, drawn by hand
    drawn = session.findings(case)
    assert not drawn.by_model and not drawn.boxes and drawn.volume_ml == pytest.approx(25)
    assert result_line(drawn) == "Liver 25 ml, slices 0 to 9 of 10"

    case.has_segment = lambda structure=None: False  # a new one
    assert session.findings(case) is None and not session.can_correct(case)
    assert look(session, case)["resultLabel"] == {"text": "", "visible": False}


def test_what_the_worker_warns_of_is_shown_with_its_result(stage):
    stage.until_running()
    stage.answer(segmented(warnings=["It looks like no CT in HU.", "The liver is cut off."]))
    assert stage.session.findings(stage.case).warnings == ["It looks like no CT in HU.", "The liver is cut off."]
    notice = look(stage.session, stage.case)["noticeLabel"]
    assert notice == {"text": "It looks like no CT in HU.\nThe liver is cut off.", "visible": True}
    stage.session.correct(stage.case, {7: []})
    stage.answer(corrected(7, ()))
    assert stage.session.findings(stage.case).warnings, "a correction does not take them away"
    stage.case.key = "another"
    assert not look(stage.session, stage.case)["noticeLabel"]["visible"]


def test_the_estimate_is_of_the_slices_that_are_asked_for(stage):
    session, case = stage.session, stage.case
    assert session.expected_seconds(case, [4]) < session.expected_seconds(case)
    assert look(session, case, [4])["estimateLabel"]["text"].endswith("for slice 4")
    stage.segmented()
    left = []
    for ks in ([4], None):
        stage.until_running(ks)
        left.append(session.progress()[1])
        stage.answer(segmented(ks))
    assert 0 < left[0] < left[1], "and so is what is left"


def test_a_worker_that_is_lost_while_the_scan_goes_to_its_file(stage):
    stage.segmented()

    def slowly(path):
        for _ in range(4):
            yield

    stage.case.export = slowly
    stage.session.segment(stage.case)
    stage.worker.die()
    stage.ticks()
    assert stage.session.error == "it ended" and not stage.session.busy
    stage.segmented()
    stage.session.segment(stage.case)
    stage.worker.die("cancelled")  # killed, since it did not end what was given up before
    stage.ticks()
    assert stage.session.busy and len(stage.workers) == 3 and stage.asked() == ["Load"]
    stage.worker.hello()
    stage.ticks()
    stage.load()
    stage.answer(segmented())
    assert len(stage.case.written) == 3 and not stage.session.error


def test_lines_of_the_log_change_nothing(stage):
    stage.until_running()
    stage.worker.messages.append((None, LogLine("a library prints")))
    stage.ticks()
    assert stage.session.state is State.RUNNING


def test_one_slice_alone(stage):
    stage.segmented(slices=[4])
    assert stage.worker.requests[-1].slices == [4]
    assert stage.case.written == [[4]]
    assert set(stage.session.findings(stage.case).p_liver) == {4}
    stage.segmented()
    stage.segmented(slices=[4])
    assert set(stage.session.findings(stage.case).p_liver) == set(range(TOTAL))


def corrected(k, boxes=((5, 6, 50, 60),)):
    return Resegmented("mask.nrrd", [k], {k: list(boxes)}, [0.95], [1200.0])


def test_areas_that_the_worker_counted_are_not_counted_again(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(5, 6, 50, 60)]})
    stage.answer(corrected(7))
    areas = stage.session.findings(stage.case).area_mm2
    assert not stage.case.counted and areas == dict.fromkeys(range(TOTAL), 1000.0) | {0: 0.0, 7: 1200.0}


def test_areas_are_counted_where_something_was_masked(stage):
    stage.case.exact = False
    stage.until_running()
    stage.worker.say(segmented())
    stage.case.mm2 = None
    stage.ticks()
    assert stage.case.counted == 1 and stage.session.findings(stage.case).volume_ml == pytest.approx(45.0)


def test_the_areas_of_kept_slices_are_those_of_the_segment(stage):
    stage.segmented()
    stage.case.drawn, stage.case.mm2 = [3], [700.0 if k == 3 else area for k, area in enumerate(stage.case.mm2)]
    stage.segmented()
    assert stage.session.findings(stage.case).area_mm2[3] == 700 and not stage.case.counted


def test_a_dragged_box_is_segmented_again_from_the_cache(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(5, 6, 50, 60)]})
    assert stage.worker.requests[-1] == Resegment([SliceBoxes(7, [(5, 6, 50, 60)])])
    assert stage.session.correcting
    stage.answer(corrected(7))
    findings = stage.session.findings(stage.case)
    assert stage.case.written[-1] == [7]
    assert findings.boxes[7] == [(5, 6, 50, 60)] and findings.review == [2] and findings.corrected == {7}


def test_undo_brings_the_boxes_back(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(5, 6, 50, 60)]})
    stage.answer(corrected(7))
    for version, box, ks in (("1", (1, 2, 30, 40), set()), ("2", (5, 6, 50, 60), {7})):
        stage.case.version = version
        findings = stage.session.findings(stage.case)
        assert findings.boxes[7] == [box] and findings.corrected == ks and (7 in findings.review) == (not ks)


@pytest.mark.parametrize(("choice", "written"), [(NEW_SEGMENTATION, [None]), (REPLACE, [None]), (CANCEL, [])])
def test_a_segmentation_of_another_scan_is_asked_for_once_and_before_all_else(stage, choice, written):
    """It may hold slices that look edited, too: they are another patient's."""
    stage.case.owner, stage.case.drawn, stage.user.choice = "their scan", [3], choice
    stage.session.segment(stage.case)
    assert len(stage.user.questions) == 1 and "their scan" in stage.user.questions[0]
    assert stage.session.busy == bool(written)
    assert stage.case.owner == ("" if choice == NEW_SEGMENTATION else "their scan")
    if written:
        stage.worker.hello()
        stage.ticks()
        stage.load()
        stage.answer(segmented())
    assert stage.case.written == written


def test_what_is_corrected_is_counted_in_the_segment_as_it_stands(stage):
    """A correction that leaves a slice as the model had it corrects nothing, and a reloaded scene counts the same."""
    stage.segmented()
    stage.session.correct(stage.case, {7: None})
    stage.answer(corrected(7))
    stage.case.corrected_in.clear()
    assert "corrected" not in result_line(stage.session.findings(stage.case))
    stage.case.drawn = [1, 2]
    stage.session.forget()
    assert "2 corrected" in result_line(stage.session.findings(stage.case))


def test_the_workers_lines_begin_as_sentences_and_names_stay():
    assert sentence("no liver found; check that") == "No liver found; check that"
    assert sentence("ct.nii: is empty") == "ct.nii: is empty" and sentence("") == ""


def test_corrections_that_come_during_a_correction_are_made_together(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: [(1, 1, 2, 2)]})
    stage.session.correct(stage.case, {7: []})
    stage.session.correct(stage.case, {2: None})
    stage.answer(corrected(7))
    assert stage.worker.requests[-1] == Resegment([SliceBoxes(7, []), SliceBoxes(2, None)])


def test_a_box_that_is_dragged_during_a_run_does_not_disturb_it(stage):
    stage.segmented()
    stage.until_running()
    stage.session.correct(stage.case, {7: [(1, 1, 2, 2)]})
    assert stage.session.state is State.RUNNING and not stage.session.error
    stage.answer(segmented())
    assert len(stage.case.written) == 2 and stage.asked()[-1] == "Segment"


def test_a_slice_edited_by_hand_is_segmented_again_only_after_a_yes(stage):
    stage.segmented()
    stage.case.drawn, stage.user.choice = [7], CANCEL
    for boxes, asked in (([], "Empty"), (None, "new segmentation"), ([(1, 2, 30, 40)], "new segmentation")):
        stage.session.correct(stage.case, {7: boxes})
        assert stage.asked()[-1] == "Segment" and asked in stage.user.questions[-1]
    stage.user.choice = REPLACE
    stage.session.correct(stage.case, {7: []})
    assert stage.asked()[-1] == "Resegment"


def test_corrected_slices_count_as_edits_of_the_next_run(stage):
    stage.segmented()
    stage.session.correct(stage.case, {7: []})
    stage.answer(corrected(7, ()))
    stage.segmented()
    assert "slice 7" in stage.user.questions[-1]
    assert 7 not in stage.case.written[-1]
    assert stage.session.findings(stage.case).boxes[7] == []


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
    assert not stage.session.findings(stage.case).by_model


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
    clock = Clock()
    progress = RunClock({START: 10.0, CLASSIFY: 10.0, SEGMENT: 20.0, WRITE: 0.0}, clock)
    clock.now = 5.0
    seen = [(progress.fraction(), progress.seconds_left())]
    for now, stage, done in ((10, CLASSIFY, 5), (15, CLASSIFY, 10), (20, SEGMENT, 1), (40, SEGMENT, 10)):
        clock.now = now
        progress.update(stage, done, 10)
        seen.append((progress.fraction(), progress.seconds_left()))
    fractions, left = zip(*seen, strict=True)
    assert list(fractions) == sorted(fractions) and fractions[-1] <= 0.99
    assert list(left) == sorted(left, reverse=True) and left[-1] == 0
    clock.now = 41.0
    assert progress.spent() == {START: 10, CLASSIFY: 10, SEGMENT: 21}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (7.4, "7 s"), (43, "45 s"), (61, "1 min"), (84, "1 min 20 s"), (1000, "16 min")]
)
def test_times_as_one_says_them(seconds, text):
    assert duration(seconds) == text


def test_slices_as_one_says_them():
    assert slices([3]) == "slice 3"
    assert slices([9, 3, 4, 5]) == "slices 3 to 5, 9"


@pytest.mark.parametrize("view", [look, correct_look])
def test_every_look_fits_the_ui_file(stage, view):
    """Names of widgets, and properties that those widgets have, in every state."""
    widgets = {node.get("name"): node.get("class") for node in ElementTree.parse(UI).iter("widget")}
    looks = [view(stage.session, None), view(stage.session, stage.case)]
    stage.until_running()
    looks.append(view(stage.session, stage.case))
    stage.answer(segmented())
    looks.append(view(stage.session, stage.case))
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
    stage.worker.say(Progressed(Stage.SEGMENT, 3, 7))
    stage.ticks(1)
    during = look(stage.session, stage.case)
    assert during["segmentButton"]["text"] == "Cancel" and during["segmentButton"]["enabled"]
    assert during["progressBar"]["format"].startswith("Segmenting, 3 of 7")
    stage.session.cancel()
    assert not look(stage.session, stage.case)["segmentButton"]["enabled"]
    assert changes(before, before) == {}
    assert "segmentButton" in changes(before, during)


def test_findings_of_an_empty_scan():
    findings = Findings.from_answer(segmented(area_mm2=[0.0] * TOTAL, volume_ml=0.0, slice_range=None), None, 5.0)
    assert result_line(findings) == "No liver found."
    p, area = findings.curves()
    assert p.shape == area.shape == (TOTAL,)
