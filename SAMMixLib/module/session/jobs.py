"""What a click begins, from the click to the scene: each job is a generator of short steps, read from top to bottom."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar, TypeVar

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module.case_state import Findings
from SAMMixLib.module.protocols import Case
from SAMMixLib.module.session.engine import Engine
from SAMMixLib.module.session.eta import WRITE, RunClock, Work
from SAMMixLib.module.session.results import Results
from SAMMixLib.worker.protocol import Box, Progressed, Resegment, Segment, Segmented, SliceBoxes, Suggest

T = TypeVar("T")


class State(Enum):
    IDLE = "idle"
    STARTING = "starting"  # the worker starts, and the scan goes to a file
    LOADING = "loading"  # the worker loads the model
    RUNNING = "running"
    IMPORTING = "importing"  # the result goes into the scene
    CANCELLING = "cancelling"


@dataclass
class Job:
    """One request of the user's. `steps` does it, and says after each step what it is at."""

    case: Case
    momentary: ClassVar[bool] = True  # done in a moment: no progress is shown, and nothing else waits for it

    def steps(self, engine: Engine, results: Results) -> Iterator[State]:
        raise NotImplementedError


@dataclass
class SegmentJob(Job):
    """Segment the case, or only `slices` of it."""

    momentary: ClassVar[bool] = False
    model: str
    clock: RunClock
    work: Work
    slices: list[int] | None = None
    edited: set[int] = field(default_factory=set)  # by the user, when the job began
    keep: bool = True  # those edits

    def steps(self, engine: Engine, results: Results) -> Iterator[State]:
        answer = yield from self._segmented(engine)
        self.case.structure = engine.structure
        findings, written = self._merge(answer, results)
        yield State.IMPORTING
        yield from _bring_in(self.case, findings, self.case.write(Path(answer.mask), written), written)
        results.keep(self.case, findings)
        engine.warm = self.case.key
        yield from _show(self.case, findings)

    def _segmented(self, engine: Engine) -> Generator[State, None, Segmented]:
        """The worker's answer."""
        engine.begin_loading(self.model)
        volume = engine.folder / "volume.nrrd"
        for _ in self.case.export(volume):
            yield _loading(engine)
        for _ in engine.finish_loading(self.model):
            yield _loading(engine)
        engine.warm = ""
        asked = engine.ask(Segment(str(volume), self.slices), self._progressed)
        answer = yield from _each(asked, State.RUNNING)
        self.clock.update(WRITE)
        return answer

    def _progressed(self, message: Progressed) -> None:
        self.clock.update(message.stage.value, message.done, message.total)

    def _merge(self, answer: Segmented, results: Results) -> tuple[Findings, list[int] | None]:
        """What was found, and which slices to write: all but those whose edits the user keeps; None for all."""
        total, length = self.case.size()
        findings = Findings.from_answer(answer, self.slices, length / total)
        now_edited = set(self.case.edited_slices())
        kept = now_edited | self.edited if self.keep else now_edited - self.edited
        if self.slices is not None:
            kept |= set(range(total)) - set(self.slices)
        if (before := results.of(self.case)) is not None:
            findings.keep(before, kept)
        return findings, [k for k in range(total) if k not in kept] if kept else None


@dataclass
class CompareJob(SegmentJob):
    """Segment with another model, into the segmentation of the case and nowhere else."""

    def steps(self, engine: Engine, results: Results) -> Iterator[State]:
        answer = yield from self._segmented(engine)
        self.case.structure = engine.structure
        yield State.IMPORTING
        yield from _each(self.case.write(Path(answer.mask), None), State.IMPORTING)


@dataclass
class CorrectJob(Job):
    """Segment slices again: from the given boxes, [] for "no liver here", None for "liver here"."""

    boxes: dict[int, list[Box] | None]

    def steps(self, engine: Engine, results: Results) -> Iterator[State]:
        asked = Resegment([SliceBoxes(k, boxes) for k, boxes in self.boxes.items()])
        answer = yield from _each(engine.ask(asked), State.RUNNING)
        findings = results.copy_of(self.case)
        findings.correct(answer)
        yield State.IMPORTING
        writing = self.case.write_slices(Path(answer.mask), answer.slices)
        yield from _bring_in(self.case, findings, writing, answer.slices)
        results.keep(self.case, findings)
        yield from _show(self.case, findings)


NOTHING_LEFT = "no slice is left to suggest: the model found nothing in others; segment the whole scan first"


@dataclass
class SuggestJob(Job):
    """Find the slice that is most worth labelling next."""

    labelled: list[int]
    found: tuple[int, str] | None = None  # slice and reason
    looked_at: tuple[int, int] = (0, 0)  # slices, and of how many

    def steps(self, engine: Engine, results: Results) -> Iterator[State]:
        answer = yield from _each(engine.ask(Suggest(self.labelled), self._progressed), State.RUNNING)
        if not answer.slices:
            raise SAMMixError(NOTHING_LEFT)
        self.found = (answer.slices[0], answer.reasons[0])

    def _progressed(self, message: Progressed) -> None:
        self.looked_at = (message.done, message.total)


def _bring_in(
    case: Case, findings: Findings, writing: Generator[None, None, bool], written: list[int] | None
) -> Iterator[State]:
    """Write a mask into the scene; what the worker has counted is not counted again."""
    areas = case.areas()
    if (yield from _each(writing, State.IMPORTING)):
        new = set(range(len(areas)) if written is None else written)
        case.take_areas([findings.area_mm2[k] if k in new else area for k, area in enumerate(areas)])


def _show(case: Case, findings: Findings) -> Iterator[State]:
    for _ in case.show(findings):
        yield State.IMPORTING
    findings.cam = None  # the scene holds it now


def _each(work: Generator[None, None, T], state: State) -> Generator[State, None, T]:
    """Do work step by step, saying `state` after each; the generator's value is that of `work`."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
        yield state


def _loading(engine: Engine) -> State:
    return State.LOADING if engine.reply is not None and engine.conversation.ready else State.STARTING
