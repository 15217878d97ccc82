"""How long a run takes: guessed before the first, learned from each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from SAMMixLib.module.session.settings import Settings
from SAMMixLib.worker.protocol import Stage

START = "start"  # before there is a worker
CLASSIFY, SEGMENT, WRITE = Stage.CLASSIFY.value, Stage.SEGMENT.value, Stage.WRITE.value
STAGES = (START, CLASSIFY, SEGMENT, WRITE)
SAM_EVERY_MM = 4.0  # SAM sees thin slices this far apart
WITH_LIVER = 0.6  # of an abdominal scan's slices
FIRST_GUESS = {  # s for each unit of work: a start, a slice, a slice that SAM sees, a slice
    "cpu": {START: 8.0, CLASSIFY: 0.03, SEGMENT: 0.45, WRITE: 0.01},
    "gpu": {START: 10.0, CLASSIFY: 0.004, SEGMENT: 0.03, WRITE: 0.01},
}


@dataclass(frozen=True)
class Work:
    """The size of a run."""

    slices: int
    length_mm: float
    cold: bool = False  # the worker has to start and load the model

    def units(self) -> dict[str, float]:
        seen = WITH_LIVER * min(self.slices, max(1.0, self.length_mm / SAM_EVERY_MM))
        return {START: float(self.cold), CLASSIFY: self.slices, SEGMENT: seen, WRITE: self.slices}


class Paces:
    """Seconds for each unit of work, for each pair of device and model, kept in the settings."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def expect(self, device: str, model: str, work: Work) -> dict[str, float]:
        """Seconds that each stage will take."""
        guess = FIRST_GUESS["cpu" if device.startswith("cpu") else "gpu"]
        learned = self._learned().get(_key(device, model), {})
        return {stage: units * learned.get(stage, guess[stage]) for stage, units in work.units().items()}

    def learn(self, device: str, model: str, work: Work, spent: dict[str, float]) -> None:
        """Take over what a whole run took, in seconds for each stage."""
        units = work.units()
        learned = self._learned()
        rates = learned.setdefault(_key(device, model), {})
        rates |= {stage: seconds / units[stage] for stage, seconds in spent.items() if units[stage]}
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

    def __init__(self, expected: dict[str, float], clock: Callable[[], float] = time.monotonic):
        self.expected, self._clock = expected, clock
        self.stage, self.done, self.total = START, 0, 0
        self._spent: dict[str, float] = {}
        self._since = clock()

    def update(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Stages that are not of :data:`STAGES` are left out: they take no time to speak of."""
        if stage not in STAGES:
            return
        if stage != self.stage:
            self._spent, self._since = self.spent(), self._clock()
            self.stage = stage
        self.done, self.total = done, total

    def spent(self) -> dict[str, float]:
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
