"""The sentences a radiologist reads."""

from __future__ import annotations

from collections.abc import Iterable

from SAMMixLib.module.case_state import Findings


def duration(seconds: float) -> str:
    """A time as one says it: no more digits than are known."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 58:
        return f"{5 * round(seconds / 5)} s"
    minutes, rest = divmod(10 * round(seconds / 10), 60)
    return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"


def slices(ks: Iterable[int]) -> str:
    """Slice numbers with their runs: "slice 3", "slices 3, 5 to 9"."""
    runs: list[list[int]] = []
    for k in sorted(ks):
        if runs and k == runs[-1][-1] + 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    parts = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return ("slice " if len(runs) == 1 and len(runs[0]) == 1 else "slices ") + ", ".join(parts)


def result_line(findings: Findings) -> str:
    if findings.slice_range is None:
        return "No liver found."
    first, last = findings.slice_range
    where = f"slice {first}" if first == last else f"slices {first} to {last}"
    corrected = f", {len(findings.corrected)} corrected" if findings.corrected else ""
    return f"Liver {findings.volume_ml:.0f} ml, {where} of {findings.slices_total}{corrected}"


def slice_line(findings: Findings, k: int) -> str:
    """What is known of one slice."""
    if k not in findings.p_liver:
        return f"Slice {k}: not looked at"
    parts = [f"Slice {k}: p(liver) {findings.p_liver[k]:.2f}"]
    if findings.predicted_iou.get(k):
        parts.append(f"predicted IoU {findings.predicted_iou[k]:.2f}")
    if findings.area_mm2.get(k):
        parts.append(f"{findings.area_mm2[k] / 100:.0f} cm\u00b2")
    if k in findings.corrected:
        parts.append("corrected")
    elif k in findings.review:
        parts.append("please review")
    return ", ".join(parts)


def keep_question(ks: list[int]) -> str:
    return (
        f"You changed {slices(ks)} by hand.\n\nKeep your changes there? "
        "No replaces them by the new result; Undo brings them back."
    )


def replace_question(ks: list[int]) -> str:
    return f"You edited {slices(ks)} by hand. Replace your edit by a new segmentation from the box?"


def foreign_question(segmentation: str, volume: str, other: str) -> str:
    """Before a scan's liver is written into the segmentation of another scan."""
    whose = f"was made on {other}" if other else "was made on another scan"
    return (
        f"{segmentation} {whose}.\n\nWrite the liver of {volume} into it all the same? "
        "No leaves it as it is: choose another segmentation, or create a new one."
    )
