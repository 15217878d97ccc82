"""One page about one segmentation: what was found, how sure the model was, and the pictures to check it by."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.results import SegmentationResult
from SAMMixLib.reports.montage import montage_image

DISCLAIMER = "For research use only. Not for diagnosis, and not for any decision about a patient."
MONTAGE_COUNT, MONTAGE_COLUMNS = 16, 4


def write_report(
    result: SegmentationResult, directory: str | Path, title: str, reference: np.ndarray | None = None
) -> Path:
    """Write ``report.html`` into ``directory`` and, beside it, ``montage.png``, ``chart.png`` and ``report.json``.

    The page stands alone: its pictures are inside it and it links to nothing. ``reference`` is a human mask, bool
    [k, S, S], to draw beside the prediction. The folder is made if it is missing. Nothing is put in place before all
    four files are written.

    Returns:
        The path of ``report.html``.

    Raises:
        SAMMixError: the parent of ``directory`` does not exist, or the files cannot be written.
    """
    directory = Path(directory)
    check_report(directory)
    montage = montage_image(result, MONTAGE_COUNT, MONTAGE_COLUMNS, reference)
    chart = chart_image(result)
    figures = report_figures(result, title)
    page = _page(result, figures, montage, chart, has_reference=reference is not None)
    write_together(
        directory,
        {
            "montage.png": _encode(montage, "png"),
            "chart.png": _encode(chart, "png"),
            "report.json": (json.dumps(figures, indent=2, allow_nan=False) + "\n").encode(),
            "report.html": page.encode(),
        },
    )
    return directory / "report.html"


def check_report(directory: Path) -> None:
    """Make sure, before the long work, that a report can be written into ``directory``.

    Raises:
        SAMMixError: its parent does not exist, it is a file, or nothing can be written there.
    """
    if not directory.parent.is_dir():
        raise SAMMixError(f"{directory}: its parent folder does not exist; make it first or choose another place")
    if directory.exists() and not directory.is_dir():
        raise SAMMixError(f"{directory}: is a file; choose a folder for the report")
    try:
        with tempfile.TemporaryFile(dir=directory if directory.is_dir() else directory.parent):
            pass
    except OSError as error:
        raise SAMMixError(f"{directory}: the report cannot be written there ({error.strerror})") from None


def report_figures(result: SegmentationResult, title: str) -> dict:
    """The figures of the report as plain JSON values; a figure that is not defined is None."""
    return {
        "title": title,
        "volume_ml": float(result.volume_ml),
        "mean_hu": _defined(result.mean_hu),
        "slice_range": None if result.slice_range is None else [int(k) for k in result.slice_range],
        "slices": len(result.slices),
        "spacing_kji_mm": [float(step) for step in result.spacing],
        "model": result.model_name,
        "structure": result.structure,
        "device": result.device,
        "dtype": result.dtype,
        "seconds": {stage: float(seconds) for stage, seconds in result.seconds.items()},
        "warnings": list(result.warnings),
        "p_liver": [_defined(p, 4) for p in result.p_liver],
        "area_mm2": [_defined(area, 1) for area in result.area_mm2],
        "predicted_iou": [_defined(iou, 4) for iou in result.predicted_iou],
    }


def chart_image(result: SegmentationResult) -> np.ndarray:
    """Probability and area of the structure along z on two aligned axes, uint8 RGB; prompted slices are shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    slices = np.arange(len(result.slices))
    marker = "o" if len(slices) <= 12 else None
    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.25))
    upper.plot(slices, result.p_liver, color="#2f5d8a", lw=1.6, marker=marker, ms=4)
    upper.axhline(0.5, color="#9aa3ad", lw=0.8, ls=(0, (4, 3)))
    upper.set(ylim=(-0.04, 1.04), ylabel=f"p({result.structure})", yticks=(0, 0.5, 1))
    area = np.asarray(result.area_mm2, float) / 100
    lower.plot(slices, area, color="#b4413c", lw=1.6, marker=marker, ms=4)
    lower.fill_between(slices, area, color="#b4413c", alpha=0.12, lw=0)
    lower.set(ylim=(0, 1.08 * max(area.max(), 1)), ylabel=f"{result.structure} area (cm²)")
    lower.set(xlabel="slice, inferior to superior")
    lower.set_xlim(-0.5, len(slices) - 0.5)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for axes in (upper, lower):
        for first, last in _runs(np.array([bool(boxes) for boxes in result.boxes])):
            axes.axvspan(first - 0.5, last + 0.5, color="#e9b949", alpha=0.16, lw=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#9aa3ad")
        axes.tick_params(colors="#3b4550", labelsize=9)
    figure.align_ylabels()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def _defined(value: float, digits: int | None = None) -> float | None:
    if not math.isfinite(value):
        return None
    return float(value) if digits is None else round(float(value), digits)


def _encode(image: np.ndarray, kind: str) -> bytes:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(
        buffer,
        image,
        format=kind,
        pil_kwargs={"quality": 88, "subsampling": 0} if kind == "jpeg" else {"optimize": True},
    )
    return buffer.getvalue()


def write_together(directory: Path, files: dict[str, bytes]) -> None:
    """Write files by name into a folder, made if it is missing; none is put in place before all are written.

    Raises:
        SAMMixError: they cannot be written.
    """
    made = not directory.exists()
    try:
        directory.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=directory) as beside:
            for name, content in files.items():
                (Path(beside) / name).write_bytes(content)
            for name in files:
                os.replace(Path(beside) / name, directory / name)
    except OSError as error:
        if made and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
        raise SAMMixError(
            f"{directory}: the report cannot be written ({error.strerror or error}); check space and permissions"
        ) from error


# The page


def _page(
    result: SegmentationResult, figures: dict, montage: np.ndarray, chart: np.ndarray, has_reference: bool
) -> str:
    title, structure = html.escape(figures["title"]), html.escape(figures["structure"])
    found = figures["slice_range"] is not None
    span = "none"
    if found:
        low, high = figures["slice_range"]
        span = f"{low} to {high}"
    summary = f"No {result.structure} was found"
    if found:
        summary = f"{result.structure.capitalize()} in slices {span}, {figures['volume_ml']:.0f} ml"
    mean = "not defined" if figures["mean_hu"] is None else f"{figures['mean_hu']:.0f} HU"
    cards = {"Volume": f"{figures['volume_ml']:.0f} ml", f"Slices with {structure}": span, "Mean density": mean}
    seconds = figures["seconds"]
    total = seconds.get("total", sum(seconds.values()))
    stages = ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items() if stage != "total")
    rows = {
        "Model": figures["model"] or "not named",
        "Device": f"{figures['device']}, {figures['dtype']}",
        "Time": f"{total:.1f} s" + (f" ({stages})" if stages else ""),
        "Slices in the scan": str(figures["slices"]),
        "Voxel size (k, j, i)": " x ".join(f"{step:.3g}" for step in figures["spacing_kji_mm"]) + " mm",
    }
    return _TEMPLATE.format(
        title=title,
        structure=structure,
        summary=html.escape(summary),
        cards="".join(f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>" for name, value in cards.items()),
        warnings=_warnings(result.warnings),
        chart=_picture(chart, "png", f"Probability and area of the {result.structure} in each slice. {summary}."),
        montage=_picture(montage, "jpeg", f"Slices from superior to inferior with CAM, box and outline. {summary}."),
        reference='<li><i class="reference"></i>reference outline</li>' if has_reference else "",
        rows="".join(
            f'<tr><th scope="row">{name}</th><td>{html.escape(value)}</td></tr>' for name, value in rows.items()
        ),
        disclaimer=DISCLAIMER,
    )


def _warnings(warnings: tuple[str, ...]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
    return f'<section class="warnings" aria-label="Warnings"><h2>Warnings</h2><ul>{items}</ul></section>'


def _picture(image: np.ndarray, kind: str, alt: str) -> str:
    height, width = image.shape[:2]
    data = base64.b64encode(_encode(image, kind)).decode()
    return f'<img src="data:image/{kind};base64,{data}" width="{width}" height="{height}" alt="{html.escape(alt)}">'


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; --ink: #1d252d; --soft: #5b6670; --line: #dfe3e8; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 2.5rem 1.5rem 3rem; max-width: 62rem; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
h1 {{ margin: 0; font-size: 1.7rem; font-weight: 650; line-height: 1.25; overflow-wrap: anywhere; }}
h2 {{ margin: 2.4rem 0 .7rem; font-size: 1.1rem; font-weight: 650; }}
header p, figcaption, footer {{ color: var(--soft); }}
header p {{ margin: .3rem 0 0; }}
dl {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.8rem 0 0; }}
dl div {{ flex: 1 1 9rem; padding: .8rem 1rem; border: 1px solid var(--line); border-radius: .5rem; }}
dt {{ font-size: .85rem; color: var(--soft); }}
dd {{ margin: 0; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; }}
figure {{ margin: 0; }}
figcaption {{ margin-top: .6rem; font-size: .9rem; }}
img {{ display: block; max-width: 100%; height: auto; }}
.warnings {{ margin-top: 1.5rem; padding: .8rem 1.1rem; border-left: 4px solid #c77700; background: #fff7e8; }}
.warnings h2 {{ margin: 0 0 .3rem; font-size: 1rem; }}
.warnings ul {{ margin: 0; padding-left: 1.2rem; }}
.legend {{ display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 0 0 .7rem; padding: 0; list-style: none;
  font-size: .9rem; color: var(--soft); }}
.legend i {{ display: inline-block; width: 1.6rem; margin-right: .5rem; vertical-align: middle;
  border-top: 3px solid; print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
.legend .prediction {{ border-color: #ff4b4b; }}
.legend .reference {{ border-color: #3ee08a; border-top-style: dashed; }}
.legend .box {{ border-color: #ffd60a; }}
.legend .cam {{ height: .7rem; border: 0; background: linear-gradient(90deg, #000004, #781c6d, #ed6925, #fcffa4); }}
table {{ width: 100%; border-collapse: collapse; font-size: .95rem; }}
th, td {{ padding: .45rem .5rem .45rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }}
th {{ width: 14rem; font-weight: 500; color: var(--soft); }}
footer {{ margin-top: 2.4rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .9rem; }}
@media (max-width: 36rem) {{ th {{ width: 9rem; }} body {{ padding: 1.5rem 1rem; }} }}
@media print {{ body {{ padding: 0; max-width: none; font-size: 11pt; }}
  section, figure, dl, .warnings {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>SAM-Mix segmentation in CT. <strong>{disclaimer}</strong></p>
</header>
<main>
<dl>{cards}</dl>
{warnings}
<section>
<h2>Along the scan</h2>
<figure>{chart}<figcaption>Above, the classifier's probability of {structure} in each slice; below, the area of the
mask. Shaded slices were prompted with a box.</figcaption></figure>
</section>
<section>
<h2>Slices</h2>
<ul class="legend">
<li><i class="prediction"></i>predicted outline</li>{reference}
<li><i class="box"></i>prompt box</li>
<li><i class="cam"></i>class activation map, low to high</li>
</ul>
<figure>{montage}<figcaption>{summary}. From superior to inferior; the patient's right is on the left.
p is the classifier's probability of {structure}.</figcaption></figure>
</section>
<section>
<h2>Run</h2>
<table><tbody>{rows}</tbody></table>
</section>
</main>
<footer>{disclaimer}</footer>
</body>
</html>
"""
