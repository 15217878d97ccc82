"""How the panel looks: for each widget of the ``.ui`` file, the properties that depend on what goes on."""

from __future__ import annotations

from html import escape
from typing import Any

from SAMMixLib.module import texts
from SAMMixLib.module.case_state import Findings
from SAMMixLib.module.protocols import Case
from SAMMixLib.module.session.eta import CLASSIFY, SEGMENT, WRITE
from SAMMixLib.module.session.session import Session, State

STEPS = 1000  # of the progress bar
DOING = {
    State.STARTING: "Starting",
    State.LOADING: "Loading the model",
    State.IMPORTING: "Writing the segment",
    State.CANCELLING: "Cancelling",
}
STAGES = {CLASSIFY: "Looking for the liver", SEGMENT: "Segmenting", WRITE: "Finishing"}

Look = dict[str, dict[str, Any]]
"""widget name -> property -> value"""


def in_red(text: str) -> str:
    """Rich text of a failure, in a red that is read on light and on dark ground."""
    return f'<span style="color: #e04848">{escape(text)}</span>'


def look(session: Session, case: Case | None, slices: list[int] | None = None) -> Look:
    """The tab's state. Without a case there is no volume to work on, and before a result nothing of one is shown.

    Args:
        slices: that the button would segment; all by default.
    """
    ok, reason, warnings = case.check() if case else (False, texts.NO_VOLUME, [])
    findings = session.findings(case)
    shown = findings if findings is not None and findings.slice_range is not None else None
    by_model = shown is not None and shown.by_model
    k = case.current_slice() if case else None
    cancel = session.busy and not session.correcting
    warnings = [*warnings, *map(texts.sentence, findings.warnings if findings else [])]
    notice = reason if case and not ok else "\n".join(warnings)
    return {
        "startLabel": {"visible": case is None},
        "noticeLabel": _text("" if cancel else notice),
        "segmentButton": {
            "text": "Cancelling" if session.state is State.CANCELLING else "Cancel" if cancel else "Segment Liver",
            "enabled": session.state in (State.STARTING, State.LOADING, State.RUNNING) if cancel else ok,
            "toolTip": "Stop; the scene stays as it is" if cancel else reason or "Segment the liver in this CT",
        },
        "estimateLabel": _text(_estimate(session, case, slices) if case and ok and not session.busy else ""),
        "progressBar": progress_look(session),
        "resultLabel": _text(texts.result_line(findings) if findings else ""),
        "statusLabel": _text(_error(session)),
        "volumeSelector": {"enabled": not session.busy},
        "segmentationSelector": {"enabled": not session.busy},
        "modelSelector": {"enabled": not session.busy},
        "deviceSelector": {"enabled": not session.busy},
        "unloadButton": {
            "enabled": session.loaded and not session.busy,
            "text": "Free the model's memory" if session.loaded else "No model in memory",
        },
        "resultFrame": {"visible": shown is not None},
        "heatMapCheckBox": {"visible": by_model},
        "boxCheckBox": {"visible": by_model},
        "heatMapButton": {"visible": by_model},
        "reviewButton": {
            "visible": by_model,
            "text": _review_text(findings),
            "enabled": bool(shown and shown.by_model and shown.review),
        },
        "sliceLabel": {"text": texts.slice_line(shown, k) if shown and k is not None else ""},
        "chartLabel": {"text": _chart_legend(shown) if shown else ""},
    }


def correct_look(session: Session, case: Case | None) -> Look:
    """The state of the tab Correct."""
    k = case.current_slice() if case else None
    running = session.busy and not session.correcting
    can_correct = bool(case) and k is not None and not running and session.can_correct(case)
    return {
        "hintLabel": {"text": _error(session) or _hint(session, case)},
        "editBoxButton": {"enabled": can_correct},
        "noLiverButton": {"enabled": can_correct},
        "liverButton": {"enabled": can_correct},
    }


def changes(before: Look, after: Look) -> Look:
    """What of `after` is not so already."""
    return {
        name: fresh
        for name, properties in after.items()
        if (fresh := {key: value for key, value in properties.items() if before.get(name, {}).get(key) != value})
    }


def _text(text: str) -> dict[str, Any]:
    return {"text": text, "visible": bool(text)}


def _estimate(session: Session, case: Case, slices: list[int] | None) -> str:
    name = session.device_name()
    found = {device["name"]: device["text"] for device in session.settings.devices}
    device = found.get(name, "CPU" if name == "cpu" else name)
    what = "this scan" if slices is None else texts.slices(slices)
    return f"{device}: about {texts.duration(session.expected_seconds(case, slices))} for {what}"


def progress_look(session: Session) -> dict[str, Any]:
    """Of a whole-scan job: what it is at, and how long it takes still."""
    if not session.busy or session.correcting:
        return {"visible": False, "value": 0, "format": ""}
    fraction, left = session.progress()
    stage, done, total = session.stage()
    doing = DOING.get(session.state) or STAGES.get(stage, "Working")
    if session.state is State.RUNNING and total:
        doing += f", {done} of {total}"
    if session.state in (State.STARTING, State.LOADING, State.RUNNING):
        doing += f" \u2013 {texts.duration(left)} left"
    return {"visible": True, "value": round(STEPS * fraction), "format": doing}


def _review_text(findings: Findings | None) -> str:
    if findings is None:
        return "Next to review"
    return f"Next to review ({len(findings.review)})" if findings.review else "Nothing to review"


def _chart_legend(findings: Findings) -> str:
    """Rich text with the colours of the chart's curves."""
    largest = max(findings.area_mm2.values(), default=0) / 100
    entries = [("#de8266", f"liver area (1 is {largest:.0f} cm\u00b2)")]
    if findings.by_model:
        entries = [("#1f78b5", "liver probability"), *entries, ("#d62829", "to review")]
    return "&nbsp;&nbsp;".join(f'<span style="color: {color}">\u25a0</span> {text}' for color, text in entries)


def _error(session: Session) -> str:
    if not session.error:
        return ""
    log = f' <a href="{session.log.as_uri()}">Show the log</a>' if session.log else ""
    return in_red(texts.sentence(session.error)) + log


def _hint(session: Session, case: Case | None) -> str:
    """What can be done here, or why the buttons are grey."""
    if case is None:
        return texts.NO_VOLUME
    if session.busy and not session.correcting:
        return "Wait until the segmentation is through."
    if not session.can_correct(case):
        if not case.has_segment():
            return "Segment the liver first, in the tab Segment."
        return "Paint or erase below. To correct by box, press Segment Liver first: the model does not hold this scan."
    if case.current_slice() is None:
        return "Move the red view to a slice of the scan."
    return "Edit box: drag its corners in the red view; the slice is segmented again at once. Or paint and erase below."
