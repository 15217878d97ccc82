"""The one training loop: steps until a budget is spent, a log, validations, and checkpoints to go on from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.device import Runtime
from SAMMixLib.training.checkpoint import read_checkpoint, write_checkpoint
from SAMMixLib.training.run_log import RunLog

CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 10


@dataclass(frozen=True)
class Budget:
    """How long a run trains; give one of the two.

    Args:
        steps: of the optimiser.
        seconds: processor seconds of this process, all threads together, in training steps; validation and writing
            files do not count.

    Raises:
        SAMMixError: none is given, or both.

    Example:
        >>> Budget(steps=10).spent(RunLog(step=5))
        0.5
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise SAMMixError(f"training budget: {self.steps} steps, {self.seconds} seconds; give one of the two")

    def spent(self, log: RunLog) -> float:
        """The share that a run has spent; from 1 on it is over."""
        if self.seconds is not None:
            return log.seconds / self.seconds
        return log.step / (self.steps or 1)


class TrainingRun(ABC):
    """One run in one folder. What is learned, and how it is scored, is the subclass's.

    Every step draws from generators seeded by (seed, step), so a run that was killed and resumed ends with the weights
    of one that was not.

    Attributes:
        state: how far it has come.
        watch: is told what the log is told, and ``{"step", "checkpoint"}`` when a run that is killed goes on from here.
    """

    def __init__(self, folder: Path, budget: Budget, runtime: Runtime) -> None:
        self.folder, self.budget, self.runtime = Path(folder), budget, runtime
        self.state = RunLog()
        self.watch: Callable[[dict], None] = lambda figures: None

    @abstractmethod
    def train_step(self, step: int) -> dict[str, float]:
        """One step of the optimiser; its losses by name."""

    @abstractmethod
    def validation_due(self, before: float) -> bool:
        """Whether to validate now; `before` is the share of the budget that was spent before the last step."""

    @abstractmethod
    def validate(self) -> str:
        """Score, keep the best weights, and say so in a line."""

    @abstractmethod
    def checkpoint(self) -> dict[str, Any]:
        """The state of everything that learns."""

    @abstractmethod
    def restore(self, content: dict[str, Any]) -> None:
        """Put back what :meth:`checkpoint` gave.

        Raises:
            SAMMixError: it belongs to another run.
        """

    @property
    def spent(self) -> float:
        """The share of the budget that is spent."""
        return self.budget.spent(self.state)

    def progress(self) -> tuple[int, int]:
        """How much is done, and of how much."""
        if self.budget.steps is not None:
            return self.state.step, self.budget.steps
        return min(1000, int(self.spent * 1000)), 1000

    def run(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Train until the budget is spent, and tell of each validation through `say`.

        Raises:
            SAMMixError: a loss is not a number, or the disk is full.
            Cancelled: from the runtime's progress.
        """
        saved = time.monotonic()
        while (before := self.spent) < 1:
            started = time.process_time()
            losses = self.train_step(self.state.step)
            self.state.seconds += time.process_time() - started
            self.state.step += 1
            if self.state.step % REPORT_STEPS == 0:
                self.report(losses)
            self.runtime.progress("train", *self.progress())
            due = self.validation_due(before)
            if due:
                say(self.validate())
            if due or time.monotonic() - saved > CHECKPOINT_SECONDS:
                write_checkpoint({**self.checkpoint(), "run": vars(self.state)}, self.folder)
                saved = time.monotonic()
                self.watch({"step": self.state.step, "checkpoint": True})

    def resume(self) -> None:
        """Go on from the run folder's checkpoint, if it has one.

        Raises:
            SAMMixError: the checkpoint is damaged or belongs to another run.
        """
        content = read_checkpoint(self.folder, self.runtime.device)
        if content is not None:
            self.restore(content)
            self.state = RunLog(**content["run"])
            self.state.rewrite(self.folder)

    def report(self, figures: dict) -> None:
        """Append one line to the log, and tell who watches."""
        line = {"step": self.state.step, **figures}
        self.watch(line)
        self.state.report(line, self.folder)


def set_learning_rate(optimiser: torch.optim.Optimizer, scale: float) -> None:
    """Every group of parameters at `scale` times its ``full_lr``."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * scale
