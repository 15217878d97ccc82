"""Table 1 (in domain) and Table 2 (cross-domain) of an experiment, as Markdown to read and CSV to compute with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import isnan, nan

from SAMMixLib.experiments.aggregate import Line, Result, Scores, Spread, lines, referenced, spread
from SAMMixLib.experiments.paper_figures import Figures, Published, published

NOTES = """\
- **cam** and **oracle** are prompt sources. cam: nothing but the image goes in; so it is for the networks without
  prompts. oracle: SAM is prompted with the box of the reference mask, which no user has; never compare it with cam.
- Mean ± standard deviation over seeds, without ± where there is one seed.
- Dice: slices with liver, a missed one counting as 0.
- HD: Hausdorff distance in pixels of the slice at 256 x 256, over the slices where both masks hold liver. A missed
  slice has none, so read it with the number of missed slices (mean over seeds) beside it.
- Masked without liver: share of the slices without liver that get a mask.
- Training: processor minutes of the training steps, mean over seeds.
- **Paper** is **another protocol**: what Ward & Imran (ISBI 2025) publish for {data}, with other
  patients, training and hardware, and a prompt source and a unit of HD that the paper does not state: an aim.
"""

SCORES = tuple(field.name for field in fields(Scores))
UNDEFINED = spread(())

HEAD = (
    "row",
    "labelled slices",
    "seeds",
    "training (min)",
    "cam: Dice",
    "cam: HD (px)",
    "cam: missed",
    "cam: masked without liver",
    "oracle: Dice",
    "oracle: HD (px)",
    "oracle: missed",
    "Paper, another protocol: Dice",
    "Paper, another protocol: HD",
)


def as_markdown(results: Sequence[Result], number: int, test_sets: Sequence[str]) -> str:
    """Table 1 or 2 of one protocol's results, a section for each of its test sets."""
    title = ("in domain", "cross-domain")[number - 1]
    parts = [f"# Table {number}: {title}, protocol `{results[0]['protocol']}`\n"]
    for test_set in test_sets:
        table = [HEAD, *(_cells(line, number) for line in lines(results, test_set))]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rows = [
            "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) + " |"
            for row in table
        ]
        rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        parts += [f"## {test_set}\n", _about(results, test_set), "\n".join(rows) + "\n"]
    return "\n".join([*parts, NOTES.format(data=_paper_data(number))])


def as_csv(results: Sequence[Result], number: int, test_sets: Sequence[str]) -> str:
    """The same table with a line for each test set and row; what is not defined stays empty."""
    import pandas

    records = [
        {"protocol": results[0]["protocol"], "test_set": test_set} | _record(line, number)
        for test_set in test_sets
        for line in lines(results, test_set)
    ]
    return pandas.DataFrame(records, dtype=object).to_csv(index=False, lineterminator="\n")


def _about(results: Sequence[Result], test_set: str) -> str:
    first = next(result["scores"][test_set]["cam"]["slices"] for result in results if test_set in result["scores"])
    patients = len({row["patient"] for row in first})
    with_liver, without = (len(referenced(first, liver)) for liver in (True, False))
    return f"Patients: {patients}. Slices with liver and an outline: {with_liver}. Slices without liver: {without}.\n"


def _cells(line: Line, number: int) -> tuple[str, ...]:
    minutes = line.processor_seconds.mean / 60
    return (
        line.row,
        _labels(line),
        str(line.seeds),
        "-" if isnan(minutes) else f"{minutes:.1f}",
        *_score_cells(line.scores.get("cam"), line.seeds),
        _percent(line.scores.get("cam")),
        *_score_cells(line.scores.get("oracle"), line.seeds),
        *_paper_cells(published(line.row), number),
    )


def _labels(line: Line) -> str:
    used = " to ".join(str(count) for count in dict.fromkeys((line.labelled[0], line.labelled[-1])))
    return f"all ({used})" if line.all_labels else used


def _score_cells(scores: Scores | None, seeds: int) -> tuple[str, str, str]:
    if scores is None:
        return "-", "-", "-"
    return (
        _plus_minus(scores.dice, 3, seeds),
        _plus_minus(scores.hd_px, 1, seeds),
        f"{scores.missed.mean:.1f}".removesuffix(".0"),
    )


def _plus_minus(figure: Spread, digits: int, seeds: int) -> str:
    """Such as ``0.931 ± 0.004``; says so where only some of the seeds have the figure."""
    if not figure.n:
        return "-"
    text = f"{figure.mean:.{digits}f}" + ("" if isnan(figure.sd) else f" ± {figure.sd:.{digits}f}")
    return text if figure.n == seeds else f"{text} ({figure.n} of {seeds} seeds)"


def _percent(scores: Scores | None) -> str:
    share = scores.masked_without_liver.mean if scores else nan
    return "-" if isnan(share) else f"{100 * share:.1f} %"


def _paper_cells(row: Published | None, number: int) -> tuple[str, str]:
    if row is None:
        return "-", "-"
    figures = _paper_figures(row, number)
    return f"{figures.dice:.3f}", f"{figures.hd:.2f}"


def _paper_figures(row: Published, number: int) -> Figures:
    return row.lits if number == 1 else row.totalsegmentator


def _paper_data(number: int) -> str:
    return ("LiTS (25 scans)", "TotalSegmentator (20 scans)")[number - 1]


def _record(line: Line, number: int) -> dict[str, object]:
    record: dict[str, object] = {
        "row": line.row,
        "labelled_slices": line.labelled[-1],
        "all_labels": line.all_labels,
        "seeds": line.seeds,
        "steps_mean": _number(line.steps.mean),
        "processor_seconds_mean": _number(line.processor_seconds.mean),
    }
    for prompt in ("cam", "oracle"):
        for name in SCORES:
            figure = getattr(line.scores.get(prompt), name, UNDEFINED)
            record |= {
                f"{prompt}_{name}_mean": _number(figure.mean),
                f"{prompt}_{name}_sd": _number(figure.sd),
                f"{prompt}_{name}_seeds": figure.n,
            }
    row = published(line.row)
    figures = _paper_figures(row, number) if row else ("", "")
    return record | {
        "paper_another_protocol_data": _paper_data(number),
        "paper_another_protocol_dice": figures[0],
        "paper_another_protocol_hd": figures[1],
    }


def _number(value: float) -> float | str:
    return "" if isnan(value) else round(value, 5)
