"""How the tab Train looks: for each widget of the ``.ui`` file, the properties that depend on what goes on."""

from __future__ import annotations

from html import escape

from SAMMixLib.module import texts
from SAMMixLib.module.protocols import Case
from SAMMixLib.module.session.collecting import Collector, summary
from SAMMixLib.module.session.segment_view import Look
from SAMMixLib.module.session.session import Session
from SAMMixLib.module.session.training import State, Training

STEPS = 1000  # of the progress bar
STAGES = {
    "encode slices": "Looking at the slices",
    "train": "Learning",
    "segment slices": "Comparing on held-out slices",
}
RED = "#c62828"


def look(collector: Collector, training: Training, session: Session, case: Case | None) -> Look:
    """The tab's state. Without a case there is nothing to collect from; training goes on all the same."""
    structure, k = collector.structure.name, case.current_slice() if case else None
    here, drawn = case is not None and k is not None, case is not None and case.has_segment(collector.structure)
    return {
        "exportSetButton": {"enabled": bool(collector.entries)},
        "useSliceButton": {"enabled": here and drawn},
        "useEditedButton": {"enabled": drawn},
        "emptySliceButton": {"enabled": here, "text": f"No {structure} here"},
        "rangeLabel": {"text": f"{structure.capitalize()} from"},
        "fromSpinBox": {"enabled": case is not None},
        "toSpinBox": {"enabled": case is not None},
        "fromHereButton": {"enabled": here},
        "toHereButton": {"enabled": here},
        "restCheckBox": {"text": f"No {structure} elsewhere"},
        "rangeButton": {"enabled": case is not None and not collector.busy},
        "suggestButton": {"enabled": case is not None and session.can_correct(case) and not session.busy},
        "collectLabel": {"text": _collected(collector, session, case)},
        "setSummaryLabel": {"text": summary(collector.entries, structure)},
        "parentSelector": {"enabled": not training.busy},
        "presetSelector": {"enabled": not training.busy},
        "modelNameEdit": {"enabled": not training.busy},
        "trainButton": {
            "text": "Stopping" if training.state is State.STOPPING else "Stop" if training.busy else "Train",
            "enabled": training.state is not State.STOPPING and (training.busy or bool(collector.entries)),
        },
        "resumeButton": {"visible": training.unfinished},
        "discardButton": {"visible": training.request is not None and not training.busy},
        "trainProgressBar": _progress(training),
        "trainStatusLabel": _status(training),
        "curvesLabel": {"visible": bool(training.figures)},
        **_outcome(training),
    }


def _collected(collector: Collector, session: Session, case: Case | None) -> str:
    if error := collector.error or session.error:
        return _red(error)
    if case is None:
        return "Choose a CT volume in the tab Segment."
    if session.suggested and session.suggested[0] == case.key and not collector.message:
        _, k, reason = session.suggested
        return escape(f"Slice {k}: {reason}")
    return escape(collector.message)


def _progress(training: Training) -> dict:
    if not training.busy:
        return {"visible": False, "value": 0, "format": ""}
    stage, done, total = training.stage()
    if training.state is State.STARTING or not total:
        return {"visible": True, "value": 0, "format": "Starting"}
    left = training.seconds_left()
    doing = f"{STAGES.get(stage, 'Working')}, {done} of {total}"
    doing += f" \u2013 {texts.duration(left)} left" if left is not None and training.state is State.RUNNING else ""
    return {"visible": True, "value": round(STEPS * done / total), "format": doing}


def _status(training: Training) -> dict:
    text = ""
    if training.error:
        log = f' <a href="{training.log.as_uri()}">Show the log</a>' if training.log else ""
        text = _red(training.error) + log
    elif training.unfinished:
        done = training.figures[-1] if training.figures else None
        where = f" at step {done['step']} of {done['steps']}" if done else ""
        text = escape(f"The training of {training.request.name} was stopped{where}; Resume goes on.")
    return {"text": text, "visible": bool(text)}


def _outcome(training: Training) -> Look:
    outcome = training.outcome
    there = outcome is not None
    text = ""
    if outcome:
        count = len(outcome.held_out)
        text = _red(outcome.warning) if outcome.warning else (
            f"{escape(training.request.name)} is better: Dice {outcome.before:.3f} before, {outcome.after:.3f} now, "
            f"on {count} slice{'s' * (count > 1)} held out"
        )  # fmt: skip
    return {
        "outcomeLabel": {"text": text, "visible": there},
        "beforeLabel": {"visible": there},
        "afterLabel": {"visible": there},
        "pictureLabel": {"visible": there},
        "nextPictureButton": {"visible": there and len(outcome.held_out) > 1},
        "useModelButton": {"visible": there},
    }


def _red(text: str) -> str:
    return f'<span style="color: {RED}">{escape(text)}</span>'
