"""Slices side by side with the evidence on them: CAM, box, outline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from SAMMixLib.inference.results import SegmentationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILE = 288  # pixels
CAM_OPACITY = 0.45  # where the CAM is 1
COLOURS = {"prediction": "#ff4b4b", "reference": "#3ee08a", "box": "#ffd60a"}


def montage_slices(result: SegmentationResult, count: int) -> list[int]:
    """Slice numbers to show, from superior to inferior.

    At most ``count``, evenly spread over the liver with one slice above and one below it where the scan has them; over
    the whole scan where no liver was found.
    """
    last = len(result.slices) - 1
    if result.slice_range is None:
        return _spread(0, last, count)
    low, high = result.slice_range
    beyond = {k for k in (low - 1, high + 1) if 0 <= k <= last} if count > 2 else set()
    return sorted(beyond.union(_spread(low, high, count - len(beyond))), reverse=True)


def montage_image(
    result: SegmentationResult, count: int = 16, columns: int = 4, reference: np.ndarray | None = None
) -> np.ndarray:
    """Tiles of :func:`montage_slices`, row by row: uint8 RGB [rows * 288, columns * 288, 3].

    Each tile shows the windowed slice, the CAM as heat (opaque where it is high), the prompt box in yellow, the
    prediction's outline in red, the ``reference`` (bool [k, S, S], optional) in dashed green, and its slice number and
    p(liver), with ≈ where the classifier saw its neighbours only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = montage_slices(result, count)
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(columns * TILE / 100, rows * TILE / 100), dpi=100, facecolor="white")
    gap = 0.006
    for n, k in enumerate(chosen):
        row, column = divmod(n, columns)
        place = (column / columns + gap / 2, 1 - (row + 1) / rows + gap / 2, 1 / columns - gap, 1 / rows - gap)
        _draw_tile(figure.add_axes(place), result, k, reference)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _spread(low: int, high: int, count: int) -> list[int]:
    return np.unique(np.linspace(high, low, max(count, 1)).round().astype(int))[::-1].tolist()


def _draw_tile(axes: Axes, result: SegmentationResult, k: int, reference: np.ndarray | None) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    axes.imshow(result.slices[k], cmap="gray", vmin=0, vmax=255, aspect="auto")
    draw_cam(axes, np.asarray(result.cams[k], np.float32), aspect="auto")
    for i0, j0, i1, j1 in result.boxes[k]:
        axes.add_patch(Rectangle((i0 - 0.5, j0 - 0.5), i1 - i0 + 1, j1 - j0 + 1, fill=False, lw=1.1, ec=COLOURS["box"]))
    draw_outline(axes, result.slice_masks[k], COLOURS["prediction"], "solid")
    if reference is not None:
        draw_outline(axes, reference[k], COLOURS["reference"], (0, (3, 1.5)))
    axes.set_axis_off()
    p = f"p {'' if result.classified[k] else '≈ '}{result.p_liver[k]:.2f}"
    for x, side, label in ((0.03, "left", f"slice {k}"), (0.97, "right", p)):
        text = axes.text(x, 0.965, label, ha=side, va="top", transform=axes.transAxes, color="white", fontsize=9)
        text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def draw_cam(axes: Axes, cam: np.ndarray, aspect: Literal["equal", "auto"] = "equal") -> None:
    """A CAM [h, w], 0 to 1, as heat that hides nothing where it is low."""
    from matplotlib import colormaps

    heat = colormaps["inferno"](cam)
    heat[..., 3] = CAM_OPACITY * np.clip(cam, 0, 1)
    axes.imshow(heat, aspect=aspect)


def draw_outline(axes: Axes, mask: np.ndarray, colour: str, style) -> None:
    """The outline of a mask [h, w]; nothing for an empty one."""
    if not mask.any():
        return
    # A rim of zeros closes the outline of a mask that touches the edge of the slice.
    size = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    axes.contour(*size, np.pad(mask, 1).astype(float), [0.5], colors=[colour], linewidths=1.1, linestyles=[style])
    axes.set_xlim(-0.5, mask.shape[1] - 0.5)
    axes.set_ylim(mask.shape[0] - 0.5, -0.5)
