"""The job behind the one button, and the corrections after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from SAMMixLib.module import texts
from SAMMixLib.module.protocols import Case, User, Worker
from SAMMixLib.module.session.conversation import RequestFailed
from SAMMixLib.module.session.engine import Engine
from SAMMixLib.module.session.errors import attempt, one_line
from SAMMixLib.module.session.eta import Paces, RunClock, Work
from SAMMixLib.module.session.jobs import CompareJob, CorrectJob, Job, RunState, SegmentJob, Steps, SuggestJob
from SAMMixLib.module.session.results import Results
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.worker.protocol import Box

YIELD_SECONDS = 0.001
STOPPABLE = (RunState.STARTING, RunState.LOADING, RunState.RUNNING)


class Session:
    """Does one job at a time for the module's widget, which calls :meth:`tick` from a timer.

    Every failure ends as :attr:`error`, one line for the user, with the state idle and the scene as it was.

    Attributes:
        state, job: what is going on; idle and None without a job.
        error, log: one line for the user, and the worker's log where the error is one of its own.
        results: what was found, by case.
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
        self.engine = Engine(start_worker, settings)
        self.results = Results()
        self.state, self.job = RunState.IDLE, None
        self.error, self.log = "", None
        self.suggested: tuple[str, int, str] | None = None
        self._user, self._clock = user, clock
        self._steps: Steps | None = None
        self._waiting: CorrectJob | None = None  # corrections that came while a job ran

    # What the widget shows

    @property
    def busy(self) -> bool:
        return self.state is not RunState.IDLE

    @property
    def loaded(self) -> bool:
        """Whether there is a worker, with all its memory."""
        return self.engine.worker is not None

    @property
    def correcting(self) -> bool:
        """Whether the job is one of a moment: a correction, or a suggestion."""
        return self.job is not None and self.job.momentary

    @property
    def clock(self) -> RunClock | None:
        """Of a whole-scan job; None without one."""
        return self.job.clock if isinstance(self.job, SegmentJob) else None

    def expected_seconds(self, case: Case, slices: list[int] | None = None) -> float:
        """What a run on this case, or on some of its slices, should take, as far as is known before it."""
        work = self._work(case, slices, self.settings.model)
        return sum(self.paces.expect(self.engine.device_name(), self.settings.model, work).values())

    def can_correct(self, case: Case) -> bool:
        """Whether a slice of the case can be segmented again from what the worker still holds."""
        return self.engine.conversation.alive and self.engine.warm == case.key and case.has_segment()

    # What the user does

    def warm_up(self) -> None:
        """Start the worker, so that it is there, and its devices are known, when the user clicks."""
        if error := attempt(self.engine.start, "the worker"):
            self._fail(error)

    def segment(self, case: Case, slices: list[int] | None = None) -> None:
        """Segment the case, or only some of its slices; asks before anything of the user's would be lost."""
        if self.busy or not self._accepts(case):
            return
        if owner := case.foreign():
            answer = self._user.choose(texts.foreign_question(owner))
            if answer == texts.CANCEL:
                return
            if answer == texts.NEW_SEGMENTATION:
                case.use_new_segmentation()
        edited = set(case.edited_slices()) & set(range(case.size()[0]) if slices is None else slices)
        answer = self._user.choose(texts.keep_question(sorted(edited))) if edited else texts.KEEP
        if answer == texts.CANCEL or (answer == texts.KEEP and slices is not None and edited >= set(slices)):
            return
        model = self.settings.model
        clock, work = self._clocked(case, slices, model)
        self._begin(SegmentJob(case, model, clock, work, slices, edited, answer == texts.KEEP))

    def compare(self, case: Case, model: str) -> None:
        """Segment with another model, into the case's segmentation and nowhere else."""
        if not self.busy and self._accepts(case):
            self._begin(CompareJob(case, model, *self._clocked(case, None, model)))

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
        if edited and self._user.choose(texts.replace_question(edited)) != texts.REPLACE:
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
            self._fail("The model does not hold this scan: press Segment Liver first.")

    def cancel(self, because: str = "") -> None:
        """Stop the job; the scene stays as it is. A result that is being written is written to its end."""
        if self.state not in STOPPABLE:
            return
        self.error, self._waiting = because, None
        self._steps.close()
        if self.engine.reply is None:
            self._end()
        else:
            self.state = RunState.CANCELLING
            self.engine.conversation.cancel(self.engine.reply)

    def unload(self) -> None:
        """Let the worker go, with the model, its embeddings and their memory. A running job ends."""
        self.engine.close()
        self._waiting = None
        self._end()

    def forget(self) -> None:
        """The scene was closed: nothing that was found belongs to anything any more."""
        if self.busy:
            self.unload()
        self.results.clear()
        self.engine.warm, self.error, self.log = "", "", None

    def tick(self) -> None:
        """Look after the worker's messages, and do one short step of the job."""
        time.sleep(YIELD_SECONDS)  # an application that embeds Python lets the reader thread run only meanwhile
        self.engine.conversation.poll()
        if self.state is RunState.CANCELLING:
            if self.engine.reply is None or self.engine.reply.settled:
                self._end()
        elif self._steps is not None:
            self._advance()
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
        return Work(count, length * count / total, not self.engine.holds(model))

    def _clocked(self, case: Case, slices: list[int] | None, model: str) -> tuple[RunClock, Work]:
        work = self._work(case, slices, model)
        return RunClock(self.paces.expect(self.engine.device_name(), model, work), self._clock), work

    def _begin(self, job: Job) -> None:
        self.error, self.log = "", None
        self.job, self.state = job, RunState.RUNNING if job.momentary else RunState.STARTING
        self._steps = job.steps(self.engine, self.results)
        self._advance()

    def _begin_waiting(self) -> None:
        if self._waiting and not self.busy:
            job, self._waiting = self._waiting, None
            self._begin(job)

    def _advance(self) -> None:
        """Do one step; whatever it raises becomes the one line that the user sees."""
        try:
            self.state = next(self._steps)
        except StopIteration:
            self._done()
        except RequestFailed as failure:
            if not failure.cancelled:
                self._fail(str(failure), failure.log)
            elif isinstance(self.job, SegmentJob):
                self._begin(self.job)  # the worker was killed for a job given up before; a new one does this
            else:
                self._end()
        except Exception as error:
            self._give_up(one_line(error, "a file of this run"))

    def _done(self) -> None:
        job = self.job
        if isinstance(job, SuggestJob) and job.found:
            self.suggested = (job.case.key, *job.found)
        if type(job) is SegmentJob and job.slices is None:
            self.paces.learn(self.engine.device_name(), job.model, job.work, job.clock.spent())
        self._end()

    def _give_up(self, text: str) -> None:
        if self.engine.reply is not None:
            self.engine.conversation.cancel(self.engine.reply)
        self._fail(text)

    def _fail(self, text: str, log: Path | None = None) -> None:
        self.error, self.log = text, log
        self._waiting = None
        self._end()

    def _end(self) -> None:
        self.job, self._steps, self.state = None, None, RunState.IDLE
        self.engine.reply = None
