"""The sentences a radiologist reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from SAMMixLib.models.card import dice_text
from SAMMixLib.module.case_state import Findings

KEEP, REPLACE, CANCEL = "Keep mine", "Replace", "Cancel"
NEW_SEGMENTATION, LEAVE_OUT, LABEL, LABEL_EMPTY = "New segmentation", "Leave them out", "Label them", "Label it"
NO_VOLUME = "Load a CT, or try Sample Data."
HASH = re.compile(r"-[0-9a-f]{8}$")  # that a training set puts behind a scan's name


@dataclass(frozen=True)
class Question:
    """Text and the buttons that answer it; the last one is what closing the window means."""

    text: str
    choices: tuple[str, ...]


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


dice = dice_text  # in curves, verdicts and tables, as on the command line


def scan_name(patient: str) -> str:
    """A scan's own name, without what a training set adds to tell scans of one name apart.

    >>> scan_name("chaos_ct3_ct-b3d86ae7")
    'chaos_ct3_ct'
    """
    return HASH.sub("", patient)


def result_line(findings: Findings) -> str:
    if findings.slice_range is None:
        return "No liver found."
    first, last = findings.slice_range
    where = f"slice {first}" if first == last else f"slices {first} to {last}"
    corrected = f", {len(findings.corrected)} corrected" if findings.corrected else ""
    return f"Liver {findings.volume_ml:.0f} ml, {where} of {findings.slices_total}{corrected}"


def slice_line(findings: Findings, k: int) -> str:
    """What is known of one slice."""
    parts = []
    if k in findings.p_liver:
        parts.append(f"liver probability {100 * findings.p_liver[k]:.0f} %")
    if findings.predicted_iou.get(k):
        parts.append(f"the model's own confidence {100 * findings.predicted_iou[k]:.0f} %")
    if findings.area_mm2.get(k):
        parts.append(f"{findings.area_mm2[k] / 100:.0f} cm\u00b2")
    if k in findings.corrected:
        parts.append("corrected")
    elif k in findings.review:
        parts.append("please review")
    return f"Slice {k}: {', '.join(parts) or 'no liver'}"


def sentence(line: str) -> str:
    """A line of the library's, which the command line writes after a colon, as it stands by itself. A name with which
    it begins stays.

    >>> sentence("no liver found"), sentence("ct.nii: is empty")
    ('No liver found', 'ct.nii: is empty')
    """
    return line if line.partition(" ")[0].endswith(":") else line[:1].upper() + line[1:]


def removed(scan: str) -> str:
    return f"The scan {scan} was removed from the scene; nothing was written."


def keep_question(ks: list[int], *, others: bool) -> Question:
    """Before a result is written onto slices that the user changed, and onto others or not."""
    asked = "Keep your changes there, or replace them" if others else "Replace your changes"
    return Question(
        f"You changed {slices(ks)} by hand.\n\n{asked} by the new result? Undo brings back what is replaced.",
        (KEEP, REPLACE, CANCEL) if others else (REPLACE, CANCEL),
    )


def replace_question(boxes: Mapping[int, list | None], edited: list[int]) -> Question:
    """Before a correction is written onto slices that the user `edited`; without a box it empties them."""
    empty = all(boxes[k] == [] for k in edited)
    asked = "Empty what you drew" if empty else "Replace your changes by a new segmentation"
    return Question(f"You changed {slices(edited)} by hand.\n\n{asked}? Undo brings it back.", (REPLACE, CANCEL))


def foreign_question(owner: str) -> Question:
    return Question(
        f"The chosen segmentation belongs to another scan: {owner}.\n\n"
        "Put the liver of this scan into a new segmentation, or replace what is there?",
        (NEW_SEGMENTATION, REPLACE, CANCEL),
    )


def name_question(name: str, *, taken: bool) -> str:
    """Before a model is imported under a name that it cannot have."""
    why = f"A model of the name {name} exists" if taken else f"A model cannot have the name {name}"
    return f"{why}. Import it as:"


def range_question(ks: list[int], structure: str, *, shown: bool) -> Question:
    """Before slices get a label that the segment speaks against: it shows the structure there, or does not."""
    how, label = ("shows the", "without") if shown else ("shows no", "with")
    return Question(
        f"Your segment {how} {structure} in {slices(ks)}.\n\nLabel these as slices {label} {structure}?",
        (LEAVE_OUT, LABEL, CANCEL),
    )


def empty_question(k: int, structure: str) -> Question:
    return Question(
        f"Your segment shows the {structure} in slice {k}.\n\nLabel it as a slice without {structure}?",
        (LABEL_EMPTY, CANCEL),
    )
