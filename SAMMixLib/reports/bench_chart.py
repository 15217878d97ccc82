"""The chart of ``sammix bench``: what each stage took, and what other ways take for the same scan."""

from __future__ import annotations

import io

COLOURS = ("#9aa3ad", "#7d6ba8", "#2f5d8a", "#b4413c", "#d08a1d", "#3f8f7a", "#5f8fbf")
OTHER = "#c9ced3"


def bench_chart(result: dict) -> bytes:
    """One bar for each precision, cut into its stages, and one for each other way; PNG."""
    from matplotlib.figure import Figure

    others = result["other_ways_seconds"]
    figure = Figure(figsize=(8, 1.4 + 0.5 * (len(result["runs"]) + len(others))), layout="constrained")
    axes = figure.subplots()
    names, colours = [], {}
    for run in result["runs"]:
        names.append(f"SAMMix, {run['dtype']}")
        left = 0.0
        stages = {stage: value for stage, value in run["seconds"].items() if stage != "total"}
        for stage, value in (stages | {"rest": run["seconds"]["total"] - sum(stages.values())}).items():
            label = None if stage in colours else stage
            colour = colours.setdefault(stage, COLOURS[len(colours) % len(COLOURS)])
            axes.barh(len(names), value, left=left, color=colour, label=label)
            left += value
    for name, value in others.items():
        names.append(name.replace("_", " "))
        axes.barh(len(names), value, color=OTHER)
    axes.set_yticks(range(1, 1 + len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10 * max(run["seconds"]["total"] for run in result["runs"]))
    first = result["runs"][0]
    axes.set(xlabel="seconds", title=f"{first['slices']} slices on {first['device']}")
    axes.legend(fontsize=8, ncols=4)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
