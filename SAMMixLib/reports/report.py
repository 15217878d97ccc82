"""One page about one segmentation: what was found, how sure the model was, and the pictures to check it by."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.inference.quality import verdict
from SAMMixLib.inference.results import SegmentationResult
from SAMMixLib.reports.montage import montage_image

DISCLAIMER = "For research use only. Not for diagnosis, and not for any decision about a patient."
MONTAGE_COUNT, MONTAGE_COLUMNS = 16, 4
TEMPLATE = "report.html.j2"


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
        "prompt_threshold": float(result.threshold),
        "keep_threshold": float(result.keep_threshold),
        "gate": result.gate,
        "prompted": [bool(one) for one in result.prompted],
        "p_liver": [_defined(p, 4) for p in result.p_liver],
        "classified": [bool(one) for one in result.classified],
        "area_mm2": [_defined(area, 1) for area in result.area_mm2],
        "verdict": None if result.expected_dice is None else verdict(result.expected_dice),
        "expected_dice": None if result.expected_dice is None else [_defined(dice, 3) for dice in result.expected_dice],
        "predicted_iou": [_defined(iou, 4) for iou in result.predicted_iou],
    }


def chart_image(result: SegmentationResult) -> np.ndarray:
    """Probability and area of the structure along z on two aligned axes, uint8 RGB; prompted slices are shaded.

    Where the classifier skipped thin slices, a dot stands for each that it saw; the line between them is a guess.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    slices = np.arange(len(result.slices))
    marker = "o" if len(slices) <= 12 else None
    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.25))
    upper.plot(slices, result.p_liver, color="#2f5d8a", lw=1.6, marker=marker, ms=4)
    if not result.classified.all():
        seen = np.flatnonzero(result.classified)
        upper.plot(seen, result.p_liver[seen], color="#2f5d8a", lw=0, marker="o", ms=2.5)
    for threshold in {result.threshold, result.keep_threshold}:
        upper.axhline(threshold, color="#9aa3ad", lw=0.8, ls=(0, (4, 3)))
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


@dataclass(frozen=True)
class _Picture:
    """A picture inside the page."""

    kind: str  # png or jpeg
    base64: str
    width: int
    height: int

    @classmethod
    def of(cls, image: np.ndarray, kind: str) -> _Picture:
        height, width = image.shape[:2]
        return cls(kind, base64.b64encode(_encode(image, kind)).decode(), width, height)


def _page(
    result: SegmentationResult, figures: dict, montage: np.ndarray, chart: np.ndarray, has_reference: bool
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    structure, span, summary = result.structure, "none", f"No {result.structure} was found"
    if result.slice_range is not None:
        span = "{} to {}".format(*result.slice_range)
        summary = f"{structure.capitalize()} in slices {span}, {result.volume_ml:.0f} ml"
    mean = "not defined" if figures["mean_hu"] is None else f"{figures['mean_hu']:.0f} HU"
    return environment.get_template(TEMPLATE).render(
        title=figures["title"],
        structure=structure,
        summary=summary,
        threshold=result.threshold,
        keep_threshold=result.keep_threshold,
        gate=result.gate,
        cards={"Volume": f"{result.volume_ml:.0f} ml", f"Slices with {structure}": span, "Mean density": mean},
        verdict=figures["verdict"],
        warnings=result.warnings,
        chart=_Picture.of(chart, "png"),
        montage=_Picture.of(montage, "jpeg"),
        has_reference=has_reference,
        rows=_run_rows(figures),
        disclaimer=DISCLAIMER,
    )


def _run_rows(figures: dict) -> dict[str, str]:
    """What made the result: model, device, time, and the scan's size."""
    seconds = figures["seconds"]
    total = seconds.get("total", sum(seconds.values()))
    stages = ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items() if stage != "total")
    return {
        "Model": figures["model"] or "not named",
        "Device": f"{figures['device']}, {figures['dtype']}",
        "Time": f"{total:.1f} s" + (f" ({stages})" if stages else ""),
        "Slices in the scan": str(figures["slices"]),
        "Voxel size (k, j, i)": " x ".join(f"{step:.3g}" for step in figures["spacing_kji_mm"]) + " mm",
    }
