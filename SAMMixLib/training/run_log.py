"""How far a training run has come, and the log that tells it line by line."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from SAMMixLib.files import write_text

LOG = "log.jsonl"


@dataclass
class RunLog:
    """All that a resumed run needs beside its config, weights and data."""

    step: int = 0
    best_score: float = -math.inf
    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0  # processor time of the training steps, all threads together
    prompt_threshold: float | None = None  # chosen at the last validation

    def report(self, figures: dict, folder: Path) -> None:
        """Append one line to the log."""
        self.history.append(figures)
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(figures) + "\n")

    def rewrite(self, folder: Path) -> None:
        """Drop the lines after the checkpoint: those steps are taken again."""
        write_text(folder / LOG, "".join(json.dumps(line) + "\n" for line in self.history))
