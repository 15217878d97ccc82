"""A training in a worker process of its own: from click to a model among the user's, through stops and crashes.

A run's folder keeps all that is needed to go on: ``request.json`` from the first moment, ``run/``, which is the
training's own, and ``outcome.json`` when it is through. So an application that was closed or killed finds its run
again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from enum import Enum
from pathlib import Path

from SAMMixLib.data.training_set import TrainingSet
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import write_text
from SAMMixLib.models.registry import import_model
from SAMMixLib.module.protocols import User, Worker
from SAMMixLib.module.session.conversation import Reply, RequestFailed, WorkerConversation
from SAMMixLib.module.session.errors import attempt
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.paths import STARTER, models_folder, trainings_folder
from SAMMixLib.worker.protocol import Progressed, ProtocolError, Reported, Train, Trained, decode

REQUEST, FIGURES, OUTCOME = "request.json", "figures.jsonl", "outcome.json"
RUN = "run"  # the training takes no folder that holds something else
PRESETS = {"quick": "Quick, some minutes", "full": "Full, longer"}
SEED = 0


class State(Enum):
    IDLE = "idle"
    STARTING = "starting"  # the worker starts
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Request:
    """What a run was asked for."""

    name: str  # of the new model
    slices: str  # folder of the training set
    content: str  # what was ticked there, as a hash
    model: str  # to start from
    preset: str
    seed: int = SEED


class Training:
    """Drives the training for the module's widget, which calls :meth:`tick` from a timer.

    Attributes:
        request, outcome: of the run that is there, running or not; None without.
        figures: what it reported, in order: ``step``, ``steps``, and ``loss``, ``validation_dice`` or ``checkpoint``.
        error, log: one line for the user, and the worker's log.
        message: what came of the last click.
    """

    def __init__(
        self,
        start_worker: Callable[[], Worker],
        user: User,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.settings = settings
        self.state = State.IDLE
        self.error, self.log, self.message = "", None, ""
        self.figures: list[dict[str, float]] = []
        self.request: Request | None = None
        self.outcome: Trained | None = None
        self._start_worker, self._user, self._clock = start_worker, user, clock
        self._conversation: WorkerConversation | None = None
        self._reply: Reply[Trained] | None = None
        self._run: Path | None = None
        self._stage: tuple[str, int, int] = ("", 0, 0)
        self._since = (0.0, 0)  # when steps were first seen, and how many were done
        self._find()

    # What the widget shows

    @property
    def busy(self) -> bool:
        return self.state is not State.IDLE

    @property
    def unfinished(self) -> bool:
        """Whether there is a run that can go on."""
        return self.request is not None and self.outcome is None and not self.busy

    @property
    def worker(self) -> Worker | None:
        return self._conversation.worker if self._conversation else None

    @property
    def checkpoint(self) -> int:
        """The step that a run which is stopped now goes on from; 0 before there is a checkpoint."""
        return max((int(each["step"]) for each in self.figures if "checkpoint" in each), default=0)

    def stage(self) -> tuple[str, int, int]:
        """What is being done, how much of it is done, and its total."""
        return self._stage

    def seconds_left(self) -> float | None:
        """Of this stage, by the pace so far; None before there is any."""
        started, first = self._since
        _, done, total = self._stage
        if done <= first:
            return None
        return (self._clock() - started) * (total - done) / (done - first)

    # What the user does

    def train(self, target: TrainingSet, model: str, preset: str, name: str) -> None:
        """Start anew from a model; a run that is there goes, after a question where it is not through."""
        if self.busy:
            return
        self.error, self.log, self.message = "", None, ""

        def start() -> None:
            self._check_name(name)
            entries = [entry for entry in target.entries() if entry.active]
            _check(entries, target.structure.name)
            left = self.request if self.unfinished else None
            if left and not self._user.ask(f"Give up the unfinished training of {left.name}?"):
                return
            self._remove()
            self.request = request = Request(name, str(target.folder), _content(entries), model, preset)
            self._run = run = trainings_folder() / name
            shutil.rmtree(run, ignore_errors=True)  # of a run that nobody finds any more
            run.mkdir(parents=True, exist_ok=True)
            write_text(run / REQUEST, json.dumps(asdict(request)), durable=True)
            self._begin(request, run)

        self._guarded(start)

    def resume(self) -> None:
        """Go on where the run stands; anew where the set has changed since, after a question."""
        request, run = self.request, self._run
        if not self.unfinished or request is None or run is None:
            return
        self.error, self.log, self.message = "", None, ""

        def start() -> None:
            target = TrainingSet.open(Path(request.slices))
            now = _content([entry for entry in target.entries() if entry.active])
            if now == request.content:
                self._begin(request, run)
            elif self._user.ask(
                "The training set has changed since. Start this training anew, with all of its slices?"
            ):
                self._remove()
                self.train(target, request.model, request.preset, request.name)

        self._guarded(start)

    def stop(self) -> None:
        """End the process; the run can go on later."""
        if self.state in (State.STARTING, State.RUNNING) and self._conversation and self._reply:
            self.state = State.STOPPING
            self._conversation.cancel(self._reply)

    def use(self) -> str:
        """Put the new model among the user's, and choose it; asks where it is not better. Its name, or nothing."""
        outcome, request = self.outcome, self.request
        if outcome is None or request is None:
            return ""
        question = f"{outcome.warning}\n\nUse {request.name} all the same?"
        if (outcome.warning or not outcome.better) and not self._user.ask(question.strip()):
            return ""
        self.error, self.log, self.message = "", None, ""
        used = []

        def install() -> None:
            used.append(import_model(Path(outcome.bundle), request.name).folder.name)
            self.settings.model = used[0]
            self._remove()
            self.message = f"From now on, {used[0]} segments."

        self._guarded(install)
        return used[0] if used else ""

    def discard(self) -> None:
        """Remove the run that is there, after a question."""
        if self.request and not self.busy and self._user.ask(f"Remove what was trained for {self.request.name}?"):
            self._guarded(self._remove)

    def close(self) -> None:
        """The application ends: the process goes, the run stays."""
        self._end()

    def tick(self) -> None:
        """Look after the worker's messages."""
        conversation = self._conversation
        if conversation is None:
            return
        self._guarded(conversation.poll)
        if self.state is State.STARTING and conversation.ready:
            self.state = State.RUNNING
        reply, run = self._reply, self._run
        if reply is not None and run is not None and reply.settled:
            self._guarded(lambda: self._settle(reply, run))

    # Inside

    def _begin(self, request: Request, run: Path) -> None:
        self._stage = ("", 0, 0)
        self.state = State.STARTING
        where = str(run / RUN)
        self._conversation = conversation = WorkerConversation(self._start_worker)
        conversation.ensure()
        self._reply = conversation.ask(
            Train(request.slices, request.model, request.preset, request.seed, where, self.settings.device),
            self._progressed,
            lambda message: self._reported(message, run),
        )

    def _progressed(self, message: Progressed) -> None:
        stage = message.stage.value
        if stage != self._stage[0]:
            self._since = (self._clock(), message.done)
        self._stage = (stage, message.done, message.total)

    def _reported(self, message: Reported, run: Path) -> None:
        figures = {name: value for name, value in vars(message).items() if value is not None and value is not False}
        self._take(figures)
        with (run / FIGURES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

    def _settle(self, reply: Reply[Trained], run: Path) -> None:
        """The worker has given its last word on the training."""
        try:
            self.outcome = outcome = reply.result()
            write_text(run / OUTCOME, json.dumps(asdict(outcome)), durable=True)
        except RequestFailed as failure:
            if not failure.cancelled:
                self.error, self.log = str(failure), failure.log
        self._end()

    def _take(self, figures: dict[str, float]) -> None:
        """A training that goes on reports again what came after its last checkpoint."""
        again = figures.keys(), figures["step"]
        self.figures = [
            each for each in self.figures if each["step"] <= again[1] and (each.keys(), each["step"]) != again
        ]
        self.figures.append(figures)

    def _end(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
        self._conversation = self._reply = None
        self.state = State.IDLE

    def _find(self) -> None:
        """The run that an earlier session of the application left."""
        left = sorted(trainings_folder().glob(f"*/{REQUEST}"), key=lambda path: path.stat().st_mtime)
        for path in reversed(left):
            try:
                self.request = Request(**json.loads(path.read_text(encoding="utf-8")))
                self._run = path.parent
                if (self._run / FIGURES).is_file():
                    for line in (self._run / FIGURES).read_text(encoding="utf-8").splitlines():
                        self._take(json.loads(line))
                if (self._run / OUTCOME).is_file():
                    self.outcome = _outcome(self._run / OUTCOME)
                return
            except (OSError, ValueError, TypeError, ProtocolError):  # written by something else
                self.request = None

    def _check_name(self, name: str) -> None:
        if not name or Path(name).name != name or name[0] == "." or name == STARTER:
            raise SAMMixError(f"{name!r}: not usable as the name of a model; give another")
        if (models_folder() / name).exists():
            raise SAMMixError(f"{name}: a model of this name exists; give another")

    def _remove(self) -> None:
        if self._run is not None:
            shutil.rmtree(self._run, ignore_errors=True)
        self.request = self.outcome = self._run = None
        self.figures = []

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do it; whatever it raises becomes the one line that the user sees."""
        if error := attempt(action, "a file of this training"):
            self.error = error
            self._end()


def new_name(structure: str) -> str:
    """A name for a model that nothing has yet: structure and date."""
    base, number = f"{structure} {date.today().isoformat()}", 1
    name = base
    while (models_folder() / name).exists():
        number += 1
        name = f"{base} {number}"
    return name


def _check(entries: list, structure: str) -> None:
    """Say at the click what a training needs. The worker looks closer, at every mask.

    Raises:
        SAMMixError: slices with or without the structure are missing, or masks.
    """
    masks = sum(entry.has_mask and entry.label for entry in entries)
    if not any(entry.label for entry in entries):
        raise SAMMixError(f"No ticked slice shows the {structure}; correct some slices and take them.")
    if all(entry.label for entry in entries):
        raise SAMMixError(f"Every ticked slice shows the {structure}; add some without it: No {structure} here.")
    if masks < 2:
        raise SAMMixError(
            f"{masks} of the ticked slices has a mask; take at least 2: one is kept to compare the models on."
        )


def _content(entries: list) -> str:
    ticked = sorted((entry.patient, entry.slice, entry.file.name, entry.row) for entry in entries)
    return hashlib.sha256(json.dumps(ticked).encode()).hexdigest()


def _outcome(path: Path) -> Trained:
    """What :class:`Training` has written. Raises ValueError, TypeError or ProtocolError where it is something else."""
    content = json.loads(path.read_text(encoding="utf-8"))
    _, outcome = decode(json.dumps({"type": "trained", **content}).encode()) or (None, None)
    if not isinstance(outcome, Trained):
        raise ValueError(f"{path}: no outcome of a training")
    return outcome
