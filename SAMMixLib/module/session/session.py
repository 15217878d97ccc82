"""The job behind the one button, and the corrections after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from SAMMixLib.module import texts
from SAMMixLib.module.case_state import Findings
from SAMMixLib.module.protocols import Case, User, Worker
from SAMMixLib.module.session.consent import before_writing
from SAMMixLib.module.session.conversation import RequestFailed
from SAMMixLib.module.session.engine import Engine
from SAMMixLib.module.session.errors import attempt, one_line
from SAMMixLib.module.session.eta import Paces, RunClock, Work
from SAMMixLib.module.session.jobs import CompareJob, CorrectJob, Job, SegmentJob, State, SuggestJob
from SAMMixLib.module.session.results import Results
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.worker.protocol import Box

YIELD_SECONDS = 0.001
STOPPABLE = (State.STARTING, State.LOADING, State.RUNNING)


class Session:
    """Does one job at a time for the module's widget, which calls :meth:`tick` from a timer and shows what it finds.

    Every failure ends as :attr:`error`, one line for the user, with the state idle and the scene as it was.

    Attributes:
        state: what is going on.
        error, log: one line for the user, and the worker's log where the error is one of its own.
        suggested: key of a case, the slice to label next, and why.
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
        self.log: Path | None = None
        self.suggested: tuple[str, int, str] | None = None
        self._engine = Engine(start_worker, settings)
        self._results = Results()
        self._user, self._clock = user, clock
        self._job: Job | None = None
        self._steps: Iterator[State] | None = None
        self._waiting: CorrectJob | None = None  # corrections that came while a job ran

    # What the widget shows

    @property
    def busy(self) -> bool:
        return self.state is not State.IDLE

    @property
    def worker(self) -> Worker | None:
        return self._engine.worker

    @property
    def loaded(self) -> bool:
        """Whether there is a worker, with all its memory."""
        return self.worker is not None

    @property
    def correcting(self) -> bool:
        """Whether the job is one of a moment: a correction, or a suggestion."""
        return self._job is not None and self._job.momentary

    @property
    def looked_at(self) -> tuple[int, int] | None:
        """How many slices a suggestion has looked at, and of how many; None where none is sought."""
        return self._job.looked_at if isinstance(self._job, SuggestJob) else None

    def findings(self, case: Case | None) -> Findings | None:
        """What is known of the segment of this case as it stands now; None where there is no result.

        They belong to the pair of scan and segmentation, and to what the segment holds: after a switch to another
        segmentation, an undo, or an edit they are other ones. Of a segment that was drawn or loaded they hold its
        figures only (`by_model` is False). ``warnings`` are the worker's.
        """
        return self._results.of(case)

    def progress(self) -> tuple[float, float]:
        """Fraction done and seconds left of a whole-scan job; (0, 0) without one."""
        clock = self._run_clock()
        return (clock.fraction(), clock.seconds_left()) if clock else (0.0, 0.0)

    def stage(self) -> tuple[str, int, int]:
        """The stage of the job with how much of it is done, and its total."""
        clock = self._run_clock()
        return (clock.stage, clock.done, clock.total) if clock else ("", 0, 0)

    def expected_seconds(self, case: Case, slices: list[int] | None = None) -> float:
        """What a run on this case, or on some of its slices, should take, as far as is known before it."""
        work = self._work(case, slices, self.settings.model)
        return sum(self.paces.expect(self.device_name(), self.settings.model, work).values())

    def device_name(self) -> str:
        """The device that the next run uses: for auto, the first that the worker found."""
        return self._engine.device_name()

    def can_correct(self, case: Case) -> bool:
        """Whether a slice of the case can be segmented again from what the worker still holds."""
        return self._engine.conversation.alive and self._engine.warm == case.key and case.has_segment()

    # What the user does

    def warm_up(self) -> None:
        """Start the worker, so that it is there, and its devices are known, when the user clicks."""
        if error := attempt(self._engine.start, "the worker"):
            self._fail(error)

    def segment(self, case: Case, slices: list[int] | None = None, other_model: str = "") -> None:
        """Segment the case, or only some of its slices; asks before anything of the user's would be lost.

        With another model the result is for comparison: it goes into the case's segmentation and nowhere else.
        """
        if self.busy or not self._accepts(case):
            return
        model = other_model or self.settings.model
        work = self._work(case, slices, model)
        clock = RunClock(self.paces.expect(self.device_name(), model, work), self._clock)
        if other_model:
            self._begin(CompareJob(case, model, clock, work))
            return
        if (consent := before_writing(self._user, case, slices)) is not None:
            self._begin(SegmentJob(case, model, clock, work, slices, consent.edited, consent.keep))

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
        if edited and self._user.choose(texts.replace_question(boxes, edited)) == texts.CANCEL:
            return
        waiting = self._waiting.boxes if self._waiting else {}
        self._waiting = CorrectJob(case, waiting | boxes)
        self._begin_waiting()

    def suggest(self, case: Case, labelled: list[int]) -> None:
        """Find the slice that is most worth labelling next, into :attr:`suggested`."""
        if self.busy:
            return
        self.suggested = None
        if self.can_correct(case):
            self._begin(SuggestJob(case, labelled))
        else:
            self._fail("The model does not hold this scan: press Segment first.")

    def cancel(self) -> None:
        """Stop the job; the scene stays as it is. A result that is being written is written to its end."""
        if self.state not in STOPPABLE:
            return
        self._waiting, self._steps = None, None
        if self._engine.reply is None:
            self._end()
        else:
            self.state = State.CANCELLING
            self._engine.conversation.cancel(self._engine.reply)

    def scan_removed(self, case: Case) -> None:
        """The scan of a case goes: the job on it ends now."""
        if self.busy:
            self.cancel()
            self.error = texts.removed(case.name)

    def dismiss(self) -> None:
        """Another scan is chosen: what went wrong with the last one is not said of it."""
        self.error, self.log = "", None

    def unload(self) -> None:
        """Let the worker go, with the model, its embeddings and their memory. A running job ends."""
        self._engine.close()
        self._waiting = None
        self._end()

    def forget(self) -> None:
        """The scene was closed: nothing that was found belongs to anything any more."""
        if self.busy:
            self.unload()
        self._results.clear()
        self._engine.warm, self.error, self.log = "", "", None

    def tick(self) -> None:
        """Look after the worker's messages, and do one short step of the job."""
        time.sleep(YIELD_SECONDS)  # an application that embeds Python lets the reader thread run only meanwhile
        self._engine.conversation.poll()
        if self.state is State.CANCELLING:
            if self._engine.reply is None or self._engine.reply.settled:
                self._end()
        elif self._job is not None and not self._job.case.present:
            self._give_up(texts.removed(self._job.case.name))
        elif self._steps is not None:
            self._advance(self._steps)
        else:
            self._begin_waiting()

    # Inside

    def _accepts(self, case: Case) -> bool:
        ok, reason, _ = case.check()
        if not ok:
            self._fail(reason)
        return ok

    def _work(self, case: Case, slices: list[int] | None, model: str) -> Work:
        total, length = case.size()
        count = total if slices is None else len(slices)
        return Work(count, length * count / total, not self._engine.holds(model))

    def _run_clock(self) -> RunClock | None:
        return self._job.clock if isinstance(self._job, SegmentJob) else None

    def _begin(self, job: Job) -> None:
        self.error, self.log = "", None
        self._job, self.state = job, State.RUNNING if job.momentary else State.STARTING
        self._steps = steps = job.steps(self._engine, self._results)
        self._advance(steps)

    def _begin_waiting(self) -> None:
        if self._waiting and not self.busy:
            job, self._waiting = self._waiting, None
            self._begin(job)

    def _advance(self, steps: Iterator[State]) -> None:
        """Do one step; whatever it raises becomes the one line that the user sees."""
        try:
            self.state = next(steps)
        except StopIteration:
            self._done()
        except RequestFailed as failure:
            if not failure.cancelled:
                self._fail(str(failure), failure.log)
            elif isinstance(self._job, SegmentJob):
                self._begin(self._job)  # the worker was killed for a job given up before; a new one does this
            else:
                self._end()
        except Exception as error:
            self._give_up(one_line(error, "a file of this run"))

    def _done(self) -> None:
        job = self._job
        if isinstance(job, SuggestJob) and job.found:
            self.suggested = (job.case.key, *job.found)
        if type(job) is SegmentJob and job.slices is None:
            self.paces.learn(self.device_name(), job.model, job.work, job.clock.spent())
        self._end()

    def _give_up(self, text: str) -> None:
        if self._engine.reply is not None:
            self._engine.conversation.cancel(self._engine.reply)
        self._fail(text)

    def _fail(self, text: str, log: Path | None = None) -> None:
        self.error, self.log = text, log
        self._waiting = None
        self._end()

    def _end(self) -> None:
        self._job, self._steps, self.state = None, None, State.IDLE
        self._engine.reply = None
