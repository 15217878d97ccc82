"""An evaluation as files: CSV for slices and volumes, JSON for the summary, a table to read."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation import Evaluation


def summary_table(evaluation: Evaluation) -> str:
    """A Markdown table of every figure with its 95 % interval, under a line that says where it is from."""
    source = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in evaluation.provenance.items())
    counts = ", ".join(f"{count} {what}" for what, count in evaluation.counts.items())
    lines = [source, counts, "", "| figure | value | 95 % interval | n | patients |", "|---|---|---|---|---|"]
    for name, estimate in evaluation.summary.items():
        interval = f"{estimate.low:.4g} to {estimate.high:.4g}" if isfinite(estimate.low) else "-"
        lines.append(
            f"| {name.replace('_', ' ')} | {estimate.value:.4g} | {interval} | {estimate.n} | {estimate.patients} |"
        )
    return "\n".join(lines)


def evaluation_figures(evaluation: Evaluation) -> dict[str, Any]:
    """Provenance, counts and summary as plain JSON values; None stands for what is not defined."""
    return {
        "provenance": evaluation.provenance,
        "counts": evaluation.counts,
        "summary": {name: _strict(asdict(estimate)) for name, estimate in evaluation.summary.items()},
    }


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write ``slices.csv``, ``volumes.csv``, ``summary.json`` and ``summary.md`` into `folder`, made if missing.

    Raises:
        SAMMixError: the folder or a file cannot be written.
    """
    figures = json.dumps(evaluation_figures(evaluation), indent=1, allow_nan=False)
    files = {
        "slices.csv": _csv(evaluation.slices),
        "volumes.csv": _csv(evaluation.volumes),
        "summary.json": figures + "\n",
        "summary.md": summary_table(evaluation) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            beside = folder / f".{name}-{secrets.token_hex(4)}"
            try:
                beside.write_text(text, encoding="utf-8")
                os.replace(beside, folder / name)
            finally:
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: "" if value is None else value for key, value in _strict(row).items()} for row in rows])
    return text.getvalue()


def _strict(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in row.items()}
