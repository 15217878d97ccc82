"""The pictures of an experiment: box plots of the slices as in the paper's Fig. 2, and the learning curve."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from SAMMixLib.evaluation.metrics import MISSED
from SAMMixLib.experiments.aggregate import Line, Result, lines, referenced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "U-Net": "#2f5d8a",
    "nnU-Net": "#5f8fbf",
    "TransUNet": "#7d6ba8",
    "MultiMix": "#8a949e",
    "SAM-PP": "#d08a1d",
    "SAM-Mix": "#b4413c",
}
OTHER = "#3f8f7a"  # rows that the paper does not have
GREY = "#9aa3ad"
HD_TICKS = (0, 5, 10, 20, 50, 100, 200, 362)  # the last is the diagonal of a slice
NOTE = {"color": "#5b6670", "fontsize": 8, "ha": "center", "va": "bottom"}
CURVES = {"SAM-Mix": "o", "SAM-PP": "s", "U-Net": "^"}  # family and marker
LABELS = (0, 5, 10, 25, 50, 100)


def box_plots(results: Sequence[Result], test_sets: Sequence[str], prompt: str) -> bytes:
    """Dice and HD of each slice with liver, rows from left to right in the paper's order, a line of axes a test set.

    The slices of all seeds are pooled. A missed slice has Dice 0 and no HD; how many there are is written above the
    row's HD. PNG.
    """
    from matplotlib.figure import Figure

    shown = {name: [line for line in lines(results, name) if prompt in line.scores] for name in test_sets}
    widest = max(map(len, shown.values()))
    figure = Figure(figsize=(2.4 + 0.95 * widest, 0.6 + 3.9 * len(shown)), layout="constrained", facecolor="white")
    grid = figure.subplots(len(shown), 2, squeeze=False)
    for (name, rows), (dice, hd) in zip(shown.items(), grid, strict=True):
        pooled = [_liver_slices(results, line.row, name, prompt) for line in rows]
        _draw_boxes(dice, rows, [[row["dice"] for row in own] for own in pooled])
        _draw_boxes(hd, rows, [[row["hd_px"] for row in own if row["hd_px"] is not None] for own in pooled])
        dice.set(ylabel="Dice of a slice with liver", ylim=(-0.03, 1.03))
        hd.set_yscale("symlog", linthresh=10)
        hd.set_yticks(HD_TICKS, [str(tick) for tick in HD_TICKS])
        hd.minorticks_off()
        hd.set(ylabel="HD (pixels at 256, log above 10)", ylim=(0, HD_TICKS[-1]))
        for x, own in enumerate(pooled):
            missed = sum(row["case"] == MISSED for row in own)
            hd.text(x, 1.01, f"{100 * missed / len(own):.1f} %", transform=hd.get_xaxis_transform(), **NOTE)
        dice.set_title(name, loc="left", fontsize=11, fontweight="bold")
        hd.set_title("missed slices, which have no HD:", loc="left", fontsize=9, color=NOTE["color"], pad=16)
    figure.suptitle(
        f"Slices of all seeds (diamond: mean), prompt source {prompt}, protocol {results[0]['protocol']}", fontsize=12
    )
    return _png(figure)


def learning_curve(results: Sequence[Result], test_sets: Sequence[str]) -> bytes:
    """Dice (prompt source cam) against the number of labelled slices: mean and standard deviation over seeds. PNG.

    SAM-Mix, SAM-PP and U-Net on the same axes, one for each test set; small dots are single runs.
    """
    from matplotlib.figure import Figure

    shown = {name: [line for line in lines(results, name) if line.family in CURVES] for name in test_sets}
    counts = {_count(line) for rows in shown.values() for line in rows}
    places = {count: x for x, count in enumerate([*sorted(counts.union(LABELS) - {np.inf}), np.inf])}
    figure = Figure(figsize=(0.8 + 4.6 * len(shown), 4.4), layout="constrained", facecolor="white")
    grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, (name, rows) in zip(grid, shown.items(), strict=True):
        for family in CURVES:
            own = [line for line in rows if line.family == family]
            if own:
                _draw_curve(axes, results, name, own, [places[_count(line)] for line in own])
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
        axes.set_xticks(list(places.values()), ["all" if count == np.inf else str(count) for count in places])
        axes.set(xlabel="labelled slices", xlim=(-0.5, len(places) - 0.5))
        _dress(axes)
    grid[0].set_ylabel("Dice, slices with liver")
    grid[0].set_ylim(top=1)
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles, frameon=False, loc="outside lower center", ncols=len(handles))
    figure.suptitle(
        f"Mean and standard deviation over seeds, prompt source cam, protocol {results[0]['protocol']}", fontsize=12
    )
    return _png(figure)


def _liver_slices(results: Sequence[Result], row: str, test_set: str, prompt: str) -> list[dict]:
    runs = [result["scores"].get(test_set, {}) for result in results if result["row"] == row]
    return [slice_ for run in runs if prompt in run for slice_ in referenced(run[prompt]["slices"], True)]


def _draw_boxes(axes: Axes, rows: Sequence[Line], values: Sequence[list[float]]) -> None:
    drawn = axes.boxplot(
        values,
        positions=range(len(rows)),
        widths=0.62,
        patch_artist=True,
        manage_ticks=False,
        showmeans=True,
        medianprops={"color": "#1d252d", "lw": 1.4},
        meanprops={"marker": "D", "mfc": "white", "mec": "#1d252d", "ms": 4},
        flierprops={"marker": ".", "ms": 3, "mec": "none", "mfc": "#5b6670", "alpha": 0.5},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
    )
    for box, line in zip(drawn["boxes"], rows, strict=True):
        box.set(facecolor=COLOURS.get(line.family, OTHER), alpha=0.75, lw=0)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    _dress(axes)
    axes.set_xticks(range(len(rows)), [line.row for line in rows], rotation=40, ha="right", rotation_mode="anchor")


def _draw_curve(
    axes: Axes, results: Sequence[Result], test_set: str, rows: Sequence[Line], places: Sequence[int]
) -> None:
    family = rows[0].family
    colour, shift = COLOURS[family], 0.12 * (list(CURVES).index(family) - 1)  # so that error bars do not overlap
    dice = [line.scores["cam"].dice for line in rows]
    axes.errorbar(
        np.add(places, shift),
        [figure.mean for figure in dice],
        yerr=[figure.sd for figure in dice],
        color=colour,
        marker=CURVES[family],
        ms=6,
        lw=1.6,
        capsize=3,
        label=family,
    )
    for line, x in zip(rows, places, strict=True):
        runs = [result["scores"] for result in results if result["row"] == line.row and test_set in result["scores"]]
        single = [run[test_set]["cam"]["summary"]["liver_slice_dice"]["value"] for run in runs]
        axes.plot([x + shift] * len(single), single, ".", color=colour, ms=5, alpha=0.35)


def _count(line: Line) -> float:
    return np.inf if line.all_labels else line.labelled[-1]


def _dress(axes: Axes) -> None:
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors="#3b4550", labelsize=9)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
