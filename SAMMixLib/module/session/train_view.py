"""How the tab Train looks: for each widget of the ``.ui`` file, the properties that depend on what goes on."""

from __future__ import annotations

from html import escape

from SAMMixLib.module import texts
from SAMMixLib.module.protocols import Case
from SAMMixLib.module.session.collecting import Collector, summary
from SAMMixLib.module.session.segment_view import Look, in_red
from SAMMixLib.module.session.session import Session
from SAMMixLib.module.session.training import State, Training, new_name
from SAMMixLib.structure import LIVER

STEPS = 1000  # of the progress bars
NO_BAR = {"visible": False, "value": 0, "format": ""}
STAGES = {
    "encode slices": "Looking at the slices",
    "train": "Learning",
    "segment slices": "Comparing on the slices kept aside",
}


def look(
    collector: Collector, training: Training, session: Session, case: Case | None, *, seeking: bool = False
) -> Look:
    """The tab's state. Without a case there is nothing to collect from; training goes on all the same.

    Args:
        seeking: whether a suggestion was asked for that has not begun yet.
    """
    seeking = seeking or session.looked_at is not None
    structure, k = collector.structure.name, case.current_slice() if case else None
    here, drawn = case is not None and k is not None, case is not None and case.has_segment(collector.structure)
    last = max(0, case.size()[0] - 1) if case is not None and case.check()[0] else 0
    can_suggest = case is not None and session.can_correct(case)
    return {
        "exportSetButton": {"enabled": bool(collector.entries)},
        "useSliceButton": {"enabled": here and drawn},
        "useEditedButton": {"enabled": drawn},
        "emptySliceButton": {"enabled": here, "text": f"No {structure} here"},
        "rangeLabel": {"text": f"{structure.capitalize()} from"},
        "makeSegmentButton": {
            "visible": case is not None and not drawn and collector.structure != LIVER,
            "text": f"Make a segment {structure}",
        },
        "fromSpinBox": {"enabled": case is not None, "maximum": last},
        "toSpinBox": {"enabled": case is not None, "maximum": last},
        "fromHereButton": {"enabled": here},
        "toHereButton": {"enabled": here},
        "restCheckBox": {"text": f"No {structure} elsewhere"},
        "rangeButton": {"enabled": case is not None and not collector.busy},
        "suggestButton": {
            "enabled": can_suggest and not session.busy and not seeking,
            "text": "Suggesting" if seeking else "Suggest next",
        },
        "suggestProgressBar": _seeking(*(session.looked_at or (0, 0))) if seeking else NO_BAR,
        "collectLabel": _shown(_collected(collector, session, case)),
        "trainReasonLabel": _shown(_reason(collector, session, case, here and drawn)),
        "stepsLabel": {"visible": not collector.entries},
        "setSummaryLabel": {"text": summary(collector.entries, structure)},
        "parentSelector": {"enabled": not training.busy},
        "presetSelector": {"enabled": not training.busy},
        "modelNameEdit": {"enabled": not training.busy, "placeholderText": new_name(structure)},
        "trainButton": {
            "text": "Stopping" if training.state is State.STOPPING else "Stop" if training.busy else "Train",
            "enabled": training.state is not State.STOPPING and (training.busy or bool(collector.entries)),
        },
        "resumeButton": {"visible": training.unfinished},
        "discardButton": {
            "visible": training.request is not None and not training.busy,
            "text": "Discard training" if training.unfinished else "Discard model",
        },
        "trainProgressBar": _progress(training),
        "trainStatusLabel": _status(training),
        "curvesLabel": {"visible": bool(training.figures)},
        **_outcome(training),
    }


def _shown(text: str) -> dict:
    return {"text": text, "visible": bool(text)}


def _reason(collector: Collector, session: Session, case: Case | None, usable: bool) -> str:
    """Why buttons are grey."""
    structure = collector.structure
    if case is None:
        return texts.NO_VOLUME
    if case.current_slice() is None:
        return "Move the red view to a slice of the scan."
    if not usable and structure == LIVER:
        return "To use a slice, segment the liver first, in the tab Segment."
    if not usable:
        return (
            f"The scan has no segment of the {structure.name} yet: press Make a segment, draw it in some slices in the "
            "tab Correct, and use these slices."
        )
    if not session.can_correct(case):
        return "For a suggestion, press Segment Liver first: the model does not hold this scan."
    return ""


def _collected(collector: Collector, session: Session, case: Case | None) -> str:
    if error := collector.error or session.error:
        return in_red(texts.sentence(error))
    if case is not None and session.suggested and session.suggested[0] == case.key and not collector.message:
        _, k, reason = session.suggested
        return escape(f"Slice {k}: {reason}")
    return escape(collector.message)


def _seeking(done: int, total: int) -> dict:
    doing = "Looking for the slice that teaches most" + (f", {done} of {total}" if total else "")
    return {"visible": True, "value": round(STEPS * done / total) if total else 0, "format": doing}


def _progress(training: Training) -> dict:
    if not training.busy:
        return NO_BAR
    stage, done, total = training.stage()
    if training.state is State.STARTING or not total:
        doing = "Starting" if training.state is State.STARTING else "Loading the model"
        return {"visible": True, "value": 0, "format": doing}
    left = training.seconds_left()
    doing = f"{STAGES.get(stage, 'Working')}, {done} of {total}"
    doing += f" \u2013 {texts.duration(left)} left" if left is not None and training.state is State.RUNNING else ""
    return {"visible": True, "value": round(STEPS * done / total), "format": doing}


def _status(training: Training) -> dict:
    text = ""
    if training.error:
        log = f' <a href="{training.log.as_uri()}">Show the log</a>' if training.log else ""
        text = in_red(texts.sentence(training.error)) + log
    elif training.message:
        text = escape(training.message)
    elif training.request is not None and training.unfinished:
        step = training.checkpoint
        how = f"goes on after step {step} of {training.figures[-1]['steps']}" if step else "begins with the first step"
        text = escape(f"The training of {training.request.name} was stopped; Resume {how}.")
    return {"text": text, "visible": bool(text)}


def _outcome(training: Training) -> Look:
    outcome = training.outcome
    there = outcome is not None
    text, count = "", len(outcome.held_out) if there else 0
    if outcome and training.request:
        before, after = texts.dice(outcome.before), texts.dice(outcome.after)
        text = in_red(outcome.warning) if outcome.warning else (
            f"{escape(training.request.name)} is better: Dice {before} before, {after} now, on {count} "
            f"slice{'s' * (count > 1)} kept aside. Dice is the overlap with your outline, 1 at best."
        )  # fmt: skip
    return {
        "outcomeLabel": _shown(text),
        "outcomeFrame": {"visible": there},
        "beforeCaption": {
            "text": _caption("Before", "#ffaa28", outcome.before, len(outcome.held_out)) if there else ""
        },
        "afterCaption": {"text": _caption("After", "#50aaff", outcome.after, len(outcome.held_out)) if there else ""},
        "nextPictureButton": {"visible": count > 1},
    }


def _caption(when: str, color: str, dice: float, count: int) -> str:
    mean = "mean " if count > 1 else ""  # of all slices kept aside, while the picture shows one
    return f'<span style="color: {color}">\u25a0</span> {when}: {mean}Dice {texts.dice(dice)}'
