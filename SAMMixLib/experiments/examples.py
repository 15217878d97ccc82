"""The same few test slices before every row: what each makes of them, side by side as in Fig. 3 and 4 of the paper.

A cell keeps its examples in ``examples.npz`` of its folder. They show patients: what a protocol may publish is up to
the licence of its data.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from SAMMixLib.config import ModelConfig
from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.files import write_arrays
from SAMMixLib.inference.slices import SlicePredictions
from SAMMixLib.method.windowing import windowed
from SAMMixLib.reports.montage import COLOURS, draw_cam, draw_outline

FILE = "examples.npz"
PATIENTS = 2  # of each test set
INCHES = 2.2  # side of a tile


def chosen(data: SliceDataset) -> np.ndarray:
    """Positions: of each of the first patients with liver the slice in the middle of those that show it."""
    shown = data.labels & data.has_mask
    names = sorted(set(data.patients[shown].tolist()))[:PATIENTS]
    own = [np.flatnonzero(shown & (data.patients == name)) for name in names]
    middle = [positions[np.argsort(data.indices[positions])[len(positions) // 2]] for positions in own]
    return np.array(middle, int)


def keep_examples(
    folder: Path, tests: Mapping[str, SliceDataset], found: Mapping[str, SlicePredictions], model: ModelConfig
) -> None:
    """Write the examples of one cell; `found` are its predictions with prompt source ``cam``."""
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "reference", "mask", "cam", "box", "title")}
    for name, data in tests.items():
        predicted = found[name]
        for n in chosen(data):
            box = predicted.boxes[n] if predicted.boxes else np.empty((0, 4))
            arrays["image"].append((windowed(data.images[[n]], model)[0, 0] * 255).byte().numpy())
            arrays["reference"].append(data.masks[n] > 0)
            arrays["mask"].append(predicted.masks[n])
            arrays["cam"].append(np.zeros_like(arrays["image"][-1]) if predicted.cams is None else predicted.cams[n])
            arrays["box"].append(np.asarray(box[0], np.float32) if len(box) else np.full(4, np.nan, np.float32))
            arrays["title"].append(np.array(f"{name}\n{data.patients[n]}, slice {data.indices[n]}"))
    write_arrays(folder / FILE, **{key: np.stack(values) for key, values in arrays.items()})


def montage(rows: Sequence[tuple[str, Path]]) -> bytes:
    """PNG with a line a row of the table, (name, cell folder), and a column an example.

    Reference in dashed green, prediction in red, the CAM as heat and its box in yellow where there is one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    kept = []
    for name, folder in rows:
        with np.load(folder / FILE, allow_pickle=False) as arrays:
            kept.append((name, dict(arrays)))
    columns = len(kept[0][1]["image"])
    figure = Figure(figsize=(columns * INCHES, len(kept) * INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    tiles = figure.subplots(len(kept), columns, squeeze=False)
    for axes, title in zip(tiles[0], kept[0][1]["title"], strict=True):
        axes.set_title(str(title), fontsize=7)
    for line, (name, arrays) in zip(tiles, kept, strict=True):
        for n, axes in enumerate(line):
            axes.imshow(arrays["image"][n], cmap="gray", vmin=0, vmax=255)
            draw_cam(axes, arrays["cam"][n] / 255)
            x0, y0, x1, y1 = arrays["box"][n] - 0.5  # edges of pixels, whose centres the axes count
            if np.isfinite(x0):
                axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, lw=1.1, ec=COLOURS["box"]))
            draw_outline(axes, arrays["mask"][n], COLOURS["prediction"], "solid")
            draw_outline(axes, arrays["reference"][n], COLOURS["reference"], (0, (3, 1.5)))
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
