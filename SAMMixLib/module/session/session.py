"""The job behind the one button, and the corrections after it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module import texts
from SAMMixLib.module.case_state import Box, Findings
from SAMMixLib.module.protocols import Case, User, Worker
from SAMMixLib.module.session.errors import attempt
from SAMMixLib.module.session.eta import WRITE, Paces, Progress, Work
from SAMMixLib.module.session.settings import AUTO, Settings
from SAMMixLib.structure import LIVER, Structure

YIELD_SECONDS = 0.001


class State(Enum):
    IDLE = "idle"
    STARTING = "starting"  # the worker starts, and the scan goes to a file
    LOADING = "loading"  # the worker loads the model
    RUNNING = "running"
    IMPORTING = "importing"  # the result goes into the scene
    CANCELLING = "cancelling"


@dataclass
class Job:
    """One request of the user's, from click to scene."""

    case: Case
    slices: list[int] | None = None  # segment only these
    boxes: dict[int, list[Box] | None] | None = None  # a correction; None in it asks for the CAM's own box
    suggestion: bool = False  # which slice to label next, and nothing else
    model: str = ""  # that segments; the chosen one, or one to compare with it
    aside: bool = False  # the result is to be compared: what was found before stays
    edited: set[int] = field(default_factory=set)  # by the user, when the job began
    keep: bool = True  # those edits
    request: int | None = None
    volume: Path | None = None  # the scan's file
    progress: Progress | None = None
    work: Work | None = None


class Session:
    """Drives the worker for the module's widget, which calls :meth:`tick` from a timer and shows what it finds here.

    Every failure ends as :attr:`error`, one line for the user, with the state idle and the scene as it was.
    """

    def __init__(
        self,
        start_worker: Callable[[], Worker],
        user: User,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.settings = settings
        self.paces = Paces(settings)
        self.state = State.IDLE
        self.error = ""
        self.log: Path | None = None  # of the worker, when the error is one of its own
        self.found: dict[str, Findings] = {}  # by case
        self._versions: dict[tuple[str, str], Findings] = {}  # by case and version of its segment, for undo
        self._start_worker, self._user, self._clock = start_worker, user, clock
        self.worker: Worker | None = None
        self._loaded: tuple[str, str] | None = None  # model and device in the worker
        self._structure = LIVER  # that this model segments
        self._warm = ""  # the case whose embeddings the worker holds
        self._job: Job | None = None
        self._steps: Iterator[None] | None = None
        self._waiting: dict[int, list[Box] | None] = {}  # corrections that came while a job ran
        self._waiting_case: Case | None = None
        self.suggested: tuple[str, int, str] | None = None  # case, slice to label next, and why

    # What the widget shows

    @property
    def busy(self) -> bool:
        return self.state is not State.IDLE

    @property
    def loaded(self) -> bool:
        """Whether there is a worker, with all its memory."""
        return self.worker is not None

    @property
    def correcting(self) -> bool:
        """Whether the job is one of a moment: a correction, or a suggestion."""
        return self._job is not None and (self._job.boxes is not None or self._job.suggestion)

    @property
    def suggesting(self) -> bool:
        return self._job is not None and self._job.suggestion

    def progress(self) -> tuple[float, float]:
        """Fraction done and seconds left of a whole-scan job; (0, 0) without one."""
        if self._job is None or self._job.progress is None:
            return 0.0, 0.0
        now = self._clock()
        return self._job.progress.fraction(now), self._job.progress.seconds_left(now)

    def stage(self) -> tuple[str, int, int]:
        """The stage of the job with how much of it is done, and its total."""
        progress = self._job.progress if self._job else None
        return (progress.stage, progress.done, progress.total) if progress else ("", 0, 0)

    def expected_seconds(self, case: Case) -> float:
        """What a run on this case should take, as far as is known before it."""
        slices, length = case.size()
        cold = self._loaded != (self.settings.model, self.settings.device)
        work = Work(slices, length, cold)
        return sum(self.paces.expect(self.device_name(), self.settings.model, work).values())

    def device_name(self) -> str:
        """The device that the next run uses: for auto, the first that the worker found."""
        if self.settings.device != AUTO:
            return self.settings.device
        return self.settings.devices[0]["name"] if self.settings.devices else "cpu"

    def can_correct(self, case: Case) -> bool:
        """Whether a slice of the case can be segmented again from what the worker still holds."""
        return self.worker is not None and self.worker.alive and self._warm == case.key and case.key in self.found

    # What the user does

    def warm_up(self) -> None:
        """Start the worker, so that it is there, and its devices are known, when the user clicks."""
        try:
            self._ensure_worker()
        except (SAMMixError, OSError) as error:
            self._fail(str(error))

    def segment(self, case: Case, slices: list[int] | None = None, other_model: str = "") -> None:
        """Segment the case, or only some of its slices; asks before the user's own edits would be lost.

        With another model the result is for comparison: it goes into the case's segmentation and nowhere else.
        """
        if self.busy:
            return
        ok, reason, _ = case.check()
        if not ok:
            self._fail(reason)
            return
        self.error, self.log = "", None
        edited = set(case.edited_slices())
        if slices is not None:
            edited &= set(slices)
        keep = not edited or self._user.ask(texts.keep_question(sorted(edited)))
        if keep and slices is not None and edited >= set(slices):
            return
        now = self._clock()
        total, length = case.size()
        model = other_model or self.settings.model
        work = Work(total, length, self._loaded != (model, self.settings.device))
        expected = self.paces.expect(self.device_name(), model, work)
        self._job = Job(case, slices, edited=edited, keep=keep, progress=Progress(expected, now), work=work,
                        model=model, aside=bool(other_model))  # fmt: skip
        self.state = State.STARTING
        self._guarded(self._begin)

    def correct(self, case: Case, boxes: dict[int, list[Box] | None]) -> None:
        """Segment slices again: from the given boxes, ``[]`` for "no liver here", None for "liver here".

        Corrections that come during one wait for it; those that come during a run are not made.
        """
        if self.busy and not self.correcting:
            return
        if not self.can_correct(case):
            self._fail("The model does not hold this scan any more: press Segment Liver first.")
            return
        edited = sorted(set(boxes) & set(case.drawn_slices()))
        if edited and not self._user.ask(texts.replace_question(edited)):
            return
        self.error, self.log = "", None
        self._waiting |= boxes
        self._waiting_case = case
        self._start_waiting()

    def suggest(self, case: Case, labelled: list[int]) -> None:
        """Find the slice that is most worth labelling next, into :attr:`suggested`."""
        if self.busy:
            return
        self.error, self.log, self.suggested = "", None, None
        if not self.can_correct(case):
            self._fail("The model does not hold this scan: press Segment first.")
            return
        self._job = Job(case, suggestion=True)
        self.state = State.RUNNING

        def ask() -> None:
            self._job.request = self.worker.request("suggest", labelled=labelled, count=1)

        self._guarded(ask)

    def measure(self, case: Case) -> None:
        """Take the areas anew from the segment, after the user edited it; after an undo, what was found before."""
        if case.key in self.found:
            findings = self.found[case.key] = self._versions.get((case.key, case.version), self.found[case.key])
            findings.area_mm2 = dict(enumerate(case.areas()))

    def cancel(self) -> None:
        """Stop the job; the scene stays as it is. A result that is being written is written to its end."""
        if self.state in (State.STARTING, State.LOADING, State.RUNNING):
            self._waiting.clear()
            self._steps = None
            self.state = State.CANCELLING
            if self._job.request is None:
                self._end()
            else:
                self.worker.cancel(self._job.request)

    def unload(self) -> None:
        """Let the worker go, with the model, its embeddings and their memory. A running job ends."""
        if self.worker is not None:
            self.worker.close()
        self.worker, self._loaded, self._warm = None, None, ""
        self._waiting.clear()
        self._end()

    def forget(self) -> None:
        """The scene was closed: nothing that was found belongs to anything any more."""
        if self.busy:
            self.unload()
        self.found.clear()
        self._versions.clear()
        self._warm, self.error, self.log = "", "", None

    def tick(self) -> None:
        """Look after the worker's messages, and do one short step of the work in the scene."""
        time.sleep(YIELD_SECONDS)  # an application that embeds Python lets the reader thread run only meanwhile
        if self.worker is not None:
            for message in self.worker.poll():
                self._guarded(lambda message=message: self._receive(message))
        if self._steps is not None:
            self._guarded(self._advance)
        elif not self.busy and self._waiting:
            self._start_waiting()

    # The job

    def _ensure_worker(self) -> None:
        if self.worker is None or not self.worker.alive:
            if self.worker is not None:
                self.worker.close()
            self._loaded, self._warm = None, ""
            self.worker = self._start_worker()
            self.worker.start()

    def _begin(self) -> None:
        self._job.request = None
        self._ensure_worker()
        wanted = (self._job.model, self.settings.device)
        if self._loaded != wanted:
            self._loaded, self._warm = None, ""
            self._job.request = self.worker.request("load", model=wanted[0], device=wanted[1])
        self._job.volume = self.worker.folder / "volume.nrrd"
        self._steps = self._job.case.export(self._job.volume)

    def _start_waiting(self) -> None:
        if self.busy or not self._waiting:
            return
        self._job = Job(self._waiting_case, boxes=dict(self._waiting))
        self._waiting.clear()
        self.state = State.RUNNING
        rows = [{"k": k, "boxes": boxes if boxes is None else [list(box) for box in boxes]}
                for k, boxes in self._job.boxes.items()]  # fmt: skip

        def ask() -> None:
            self._job.request = self.worker.request("resegment", slices=rows)

        self._guarded(ask)

    def _advance(self) -> None:
        if next(self._steps, self) is self:
            self._steps = None
            if self.state is State.IMPORTING:
                self._done()
            else:
                self._run()

    def _run(self) -> None:
        """Ask for the segmentation once the scan is in its file and the model is loaded."""
        if self.state is State.CANCELLING or self._steps is not None:
            return
        if self._loaded is None:
            if self.worker.pid is not None:
                self.state = State.LOADING
            return
        self._warm = ""
        self._job.request = self.worker.request("segment", volume=str(self._job.volume), slices=self._job.slices)
        self.state = State.RUNNING

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "hello":
            self.settings.devices = message["devices"]
            if self.state is State.STARTING:
                self.state = State.LOADING
        elif self.worker is None:
            return  # it died of an earlier message of the same moment
        elif kind == "error" and not self.worker.alive:
            self._drop_worker()
            if self._outlives(message):
                self.state = State.STARTING
                self._guarded(self._begin)
            elif self.busy:
                self._receive_error(message)
        elif self._job is None or message.get("id") != self._job.request:
            return  # of a job that was given up
        elif kind == "progress" and self._job.progress:
            self._job.progress.update(self._clock(), message["stage"], message["done"], message["total"])
        elif kind == "error":
            self._receive_error(message)
        elif kind == "result" and self.state is not State.CANCELLING:
            self._receive_result(message)
        elif kind == "result":
            self._end()  # it was done before the cancel reached it

    def _outlives(self, message: dict[str, Any]) -> bool:
        """Whether the worker was killed for a job given up before, so that this run begins again with a new one."""
        job = self._job
        return (
            job is not None
            and not self.correcting
            and self.state in (State.STARTING, State.LOADING, State.RUNNING)
            and message["kind"] == "cancelled"
            and message.get("id") != job.request
        )

    def _receive_error(self, message: dict[str, Any]) -> None:
        if message["kind"] == "cancelled":
            self._end()
        else:
            self._fail(message["message"], message.get("log"))

    def _receive_result(self, message: dict[str, Any]) -> None:
        job = self._job
        if job.suggestion:
            found = list(zip(message["slices"], message["reasons"], strict=True))
            self.suggested = (job.case.key, *found[0]) if found else None
            self._end()
            return
        if job.boxes is None and self._loaded is None:
            self._loaded = (job.model, self.settings.device)
            self._structure = Structure.from_dict(message["structure"], job.model)
            job.request = None
            self._run()
            return
        job.request = None
        self.state = State.IMPORTING
        if job.progress:
            job.progress.update(self._clock(), WRITE)
        self._steps = self._bring_in(job, message)

    def _bring_in(self, job: Job, message: dict[str, Any]) -> Iterator[None]:
        """Write the result into the scene: every slice but those with edits that the user keeps."""
        if job.case.structure != self._structure:
            job.case.structure = self._structure
            if not job.aside:
                self.found.pop(job.case.key, None)  # it tells of another segment
        if job.aside:
            yield from job.case.write(Path(message["mask"]), None)
            return
        if job.boxes is None:
            findings, written = self._merge(job, message)
        else:
            findings, written = copy.deepcopy(self.found[job.case.key]), [int(k) for k in message["slices"]]
            findings.correct(message)
        areas = job.case.areas()
        write = job.case.write if job.boxes is None else job.case.write_slices
        if (yield from write(Path(message["mask"]), written)):  # the worker has counted already
            new = range(len(areas)) if written is None else written
            job.case.take_areas([findings.area_mm2[k] if k in new else area for k, area in enumerate(areas)])
        findings.area_mm2 = dict(enumerate(job.case.areas()))
        self.found[job.case.key] = self._versions[job.case.key, job.case.version] = findings
        if job.boxes is None:
            self._warm = job.case.key
        yield
        yield from job.case.show(findings)
        findings.cam = None  # the scene holds it now

    def _merge(self, job: Job, message: dict[str, Any]) -> tuple[Findings, list[int] | None]:
        """What was found, and which slices to write; None for all."""
        total, length = job.case.size()
        findings = Findings.from_message(message, job.slices, length / total)
        now_edited = set(job.case.edited_slices())
        kept = now_edited | job.edited if job.keep else now_edited - job.edited
        if job.slices is not None:
            kept |= set(range(total)) - set(job.slices)
        if job.case.key in self.found:
            findings.keep(self.found[job.case.key], kept)
        return findings, [k for k in range(total) if k not in kept] if kept else None

    def _done(self) -> None:
        job = self._job
        if job.progress and job.slices is None and not job.aside:
            self.paces.learn(self.found[job.case.key].device, job.model, job.work,
                             job.progress.finish(self._clock()))  # fmt: skip
        self._end()

    # Ends

    def _end(self) -> None:
        self._job, self._steps, self.state = None, None, State.IDLE

    def _fail(self, text: str, log: str | None = None) -> None:
        self.error, self.log = text, Path(log) if log else None
        self._waiting.clear()
        self._end()

    def _drop_worker(self) -> None:
        self.worker.close()
        self.worker, self._loaded, self._warm = None, None, ""

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a part of the job; whatever it raises becomes the one line that the user sees."""
        if error := attempt(action, "a file of this run"):
            self._give_up(error)

    def _give_up(self, text: str) -> None:
        job, self._steps = self._job, None
        if job is not None and job.request is not None and self.worker is not None:
            self.worker.cancel(job.request)
        self._fail(text)
