"""How long a run takes: guessed before the first, learned from each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from SAMMixLib.module.session.settings import Settings
from SAMMixLib.worker.protocol import Stage

STAGES = (Stage.START, Stage.CLASSIFY, Stage.SEGMENT, Stage.WRITE)
SAM_EVERY_MM = 4.0  # SAM sees thin slices this far apart
WITH_LIVER = 0.6  # of an abdominal scan's slices
FIRST_GUESS = {  # s for each unit of work: a start, a slice, a slice that SAM sees, a slice
    "cpu": {Stage.START: 8.0, Stage.CLASSIFY: 0.03, Stage.SEGMENT: 0.45, Stage.WRITE: 0.01},
    "gpu": {Stage.START: 10.0, Stage.CLASSIFY: 0.004, Stage.SEGMENT: 0.03, Stage.WRITE: 0.01},
}


@dataclass(frozen=True)
class Work:
    """The size of a run."""

    slices: int
    length_mm: float
    cold: bool = False  # the worker has to start and load the model

    def units(self) -> dict[Stage, float]:
        seen = WITH_LIVER * min(self.slices, max(1.0, self.length_mm / SAM_EVERY_MM))
        return {Stage.START: float(self.cold), Stage.CLASSIFY: self.slices, Stage.SEGMENT: seen, Stage.WRITE: self.slices}


class Paces:
    """Seconds for each unit of work, for each pair of device and model, kept in the settings."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def expect(self, device: str, model: str, work: Work) -> dict[Stage, float]:
        """Seconds that each stage will take."""
        guess = FIRST_GUESS["cpu" if device.startswith("cpu") else "gpu"]
        learned = self._learned().get(_key(device, model), {})
        return {stage: units * learned.get(stage.value, guess[stage]) for stage, units in work.units().items()}

    def learn(self, device: str, model: str, work: Work, spent: dict[Stage, float]) -> None:
        """Take over what a whole run took, in seconds for each stage."""
        units = work.units()
        learned = self._learned()
        rates = learned.setdefault(_key(device, model), {})
        rates |= {stage.value: seconds / units[stage] for stage, seconds in spent.items() if units[stage]}
        self._settings.set("pace", learned)

    def _learned(self) -> dict[str, dict[str, float]]:
        return self._settings.get("pace", {})


def _key(device: str, model: str) -> str:
    return f"{device} {model}"


class RunClock:
    """Where a run is: fed with stages as they come, answers with a fraction and the seconds left.

    Args:
        expected: seconds of each stage.
        clock: the time in s.
    """

    def __init__(self, expected: dict[Stage, float], clock: Callable[[], float] = time.monotonic):
        self.expected, self._clock = expected, clock
        self.stage, self.done, self.total = Stage.START, 0, 0
        self._spent: dict[Stage, float] = {}
        self._since = clock()

    def update(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Stages that are not :data:`STAGES` are left out: they take no time to speak of."""
        if stage not in [each.value for each in STAGES]:
            return
        if stage != self.stage:
            self._spent, self._since = self.spent(), self._clock()
            self.stage = Stage(stage)
        self.done, self.total = done, total

    def spent(self) -> dict[Stage, float]:
        """Seconds that each stage took until now."""
        return self._spent | {self.stage: self._spent.get(self.stage, 0.0) + self._clock() - self._since}

    def fraction(self) -> float:
        before = sum(self.expected[stage] for stage in STAGES[: STAGES.index(self.stage)])
        whole = sum(self.expected.values())
        return min(0.99, (before + self._share() * self.expected[self.stage]) / whole) if whole else 0.0

    def seconds_left(self) -> float:
        after = sum(self.expected[stage] for stage in STAGES[STAGES.index(self.stage) + 1 :])
        elapsed = self._clock() - self._since
        if self.done:
            return after + elapsed * (self.total - self.done) / self.done
        return after + max(0.0, self.expected[self.stage] - elapsed)

    def _share(self) -> float:
        if self.total:
            return self.done / self.total
        expected = self.expected[self.stage]
        return 1 - math.exp(-(self._clock() - self._since) / expected) if expected else 0.0
