"""The results of one row together: mean and standard deviation over its seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean, stdev
from typing import Any

from SAMMixLib.evaluation.evaluate import NO_REFERENCE
from SAMMixLib.evaluation.metrics import FALSE_ALARM, MISSED

METHODS = ("unet", "nnunet", "transunet", "multimix", "sam_pp", "sam_mix")
"""In the paper's order."""

Result = dict[str, Any]
"""One ``result.json``, see :func:`SAMMixLib.experiments.runs.run_cell`."""


@dataclass(frozen=True)
class Spread:
    """A figure over seeds: its mean (NaN without any), its sample standard deviation (NaN below two), how many."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Scores:
    """A row on one test set with one prompt source.

    ``dice`` is over slices with liver, a missed one counting as 0. ``hd_px``, in pixels at 256, is over the slices
    where both masks hold liver; ``missed`` is how many have none for that reason. ``false_alarms`` and the share
    ``masked_without_liver`` (prompt source cam only) are of the slices without liver.
    """

    dice: Spread
    hd_px: Spread
    missed: Spread
    false_alarms: Spread
    masked_without_liver: Spread


@dataclass(frozen=True)
class Line:
    """A row of the table on one test set; ``scores`` by prompt source."""

    row: str
    method: str
    labelled: tuple[int, ...]  # numbers of masks that its runs used
    all_labels: bool
    seeds: int
    steps: Spread
    processor_seconds: Spread
    scores: dict[str, Scores]

    @property
    def family(self) -> str:
        """The row's name without the number of labels."""
        return re.sub(r"-\d+$", "", self.row)


def spread(values: Iterable[float | None]) -> Spread:
    """Over the values that are defined."""
    defined = [value for value in values if value is not None]
    return Spread(
        fmean(defined) if defined else nan,
        stdev(defined) if len(defined) > 1 else nan,
        len(defined),
    )


def set_names(results: Sequence[Result]) -> list[str]:
    """Names of the test sets, in order."""
    return list(dict.fromkeys(name for result in results for name in result["scores"]))


def lines(results: Sequence[Result], test_set: str) -> list[Line]:
    """A line for each row that was tested on the set: methods in the paper's order, then by number of labels."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        if test_set in result["scores"]:
            rows.setdefault(result["row"], []).append(result)
    return sorted((_line(row, own, test_set) for row, own in rows.items()), key=_place)


def referenced(slices: Sequence[dict[str, Any]], liver: bool) -> list[dict[str, Any]]:
    """The scored rows of slices with, or without, liver; those that nobody has outlined are left out."""
    return [row for row in slices if row["liver"] == liver and row["case"] != NO_REFERENCE]


def _line(row: str, results: list[Result], test_set: str) -> Line:
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        for prompt, evaluation in result["scores"][test_set].items():
            by_prompt.setdefault(prompt, []).append(evaluation)
    return Line(
        row,
        results[0]["method"],
        tuple(sorted({result["labelled_slices"] for result in results})),
        results[0]["all_labels"],
        len(results),
        spread(result["steps"] for result in results),
        spread(result["processor_seconds"] for result in results),
        {prompt: _scores(evaluations) for prompt, evaluations in by_prompt.items()},
    )


def _scores(evaluations: list[dict[str, Any]]) -> Scores:
    def figure(name: str) -> Spread:
        return spread(evaluation["summary"].get(name, {}).get("value") for evaluation in evaluations)

    def count(case: str) -> Spread:
        return spread(sum(row["case"] == case for row in evaluation["slices"]) for evaluation in evaluations)

    return Scores(
        figure("liver_slice_dice"),
        figure("slice_hd_px"),
        count(MISSED),
        count(FALSE_ALARM),
        figure("masked_without_liver"),
    )


def _place(line: Line) -> tuple:
    return METHODS.index(line.method), line.family, line.all_labels, line.labelled, line.row
