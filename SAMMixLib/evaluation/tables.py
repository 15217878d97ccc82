"""An evaluation on disk: rows as CSV, all of it as JSON, and a table to read."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation.bootstrap import Estimate
from SAMMixLib.evaluation.evaluate import PROVENANCE, Evaluation
from SAMMixLib.files import write_text

MEANINGS = {
    "liver_slice_dice": "Dice, slices with liver",
    "liver_slice_iou": "IoU, slices with liver",
    "slice_dice": "Dice, slices with liver or mask",
    "slice_iou": "IoU, slices with liver or mask",
    "slice_hd_px": "HD per slice, pixels at 256",
    "slice_hd95_px": "HD95 per slice, pixels at 256",
    "slice_assd_px": "ASSD per slice, pixels at 256",
    "slice_hd_mm": "HD per slice, mm",
    "slice_hd95_mm": "HD95 per slice, mm",
    "slice_assd_mm": "ASSD per slice, mm",
    "sensitivity": "Sensitivity for slices with liver",
    "specificity": "Specificity for slices without liver",
    "auc": "AUC of p(liver)",
    "masked_without_liver": "Share of slices without liver that get a mask",
    "volume_dice": "Dice per volume",
    "volume_iou": "IoU per volume",
    "volume_hd_px": "HD per volume, pixels at 256",
    "volume_hd95_px": "HD95 per volume, pixels at 256",
    "volume_assd_px": "ASSD per volume, pixels at 256",
    "volume_hd_mm": "HD per volume, mm",
    "volume_hd95_mm": "HD95 per volume, mm",
    "volume_assd_mm": "ASSD per volume, mm",
    "volume_error_percent": "Volume error, %",
    "volume_absolute_error_percent": "Absolute volume error, %",
}


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write ``slices.csv``, ``volumes.csv``, ``evaluation.json`` and ``evaluation.md`` into ``folder``, made if absent.

    Each file appears whole or not at all. Raises :class:`SAMMixError` where the folder cannot be written.
    """
    folder = Path(folder)
    texts = {
        "slices.csv": as_csv(evaluation.slices, evaluation.provenance),
        "volumes.csv": as_csv(evaluation.volumes, evaluation.provenance),
        "evaluation.json": as_json(evaluation),
        "evaluation.md": as_table(evaluation),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def as_csv(rows: list[dict[str, Any]], provenance: dict[str, Any]) -> str:
    """One line a row, with the provenance in the last columns; what is not defined stays empty."""
    stated = {key: provenance[key] for key in (*PROVENANCE, "prompt")}
    columns = list(dict.fromkeys(key for row in rows for key in row)) + list(stated)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if value is None else value for key, value in _plain(row | stated).items()} for row in rows
    )
    return text.getvalue()


def as_json(evaluation: Evaluation) -> str:
    """Everything as strict JSON: what is not defined is null."""
    return json.dumps(_plain(asdict(evaluation)), indent=1, allow_nan=False) + "\n"


def as_table(evaluation: Evaluation) -> str:
    """A Markdown table of the summary that reads well as plain text too."""
    lines = [f"{key.replace('_', ' ')}: {value}  " for key, value in evaluation.provenance.items()]
    lines += ["", "Counts: " + ", ".join(f"{name} {count}" for name, count in evaluation.counts.items()), ""]
    table = [("figure", "mean", "95 % interval", "n", "patients")]
    table += [_line(MEANINGS[name], evaluation.summary[name]) for name in MEANINGS if name in evaluation.summary]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.insert(-len(table) + 1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    lines += ["", "Intervals: percentile bootstrap over patients. Missed slices and false alarms count as Dice 0."]
    return "\n".join(lines) + "\n"


def _line(meaning: str, estimate: Estimate) -> tuple[str, str, str, str, str]:
    interval = f"{estimate.low:.3f} to {estimate.high:.3f}" if isfinite(estimate.low) else "-"
    value = f"{estimate.value:.3f}" if isfinite(estimate.value) else "-"
    return meaning, value, interval, str(estimate.n), str(estimate.patients)


def _plain(value: Any) -> Any:
    """Python's own types, with None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not isfinite(value) else value
