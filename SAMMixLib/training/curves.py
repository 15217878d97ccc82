"""The course of a training run as a picture."""

from __future__ import annotations

from pathlib import Path

from SAMMixLib.files import atomic


def plot_curves(history: list[dict], path: Path) -> None:
    """Draw losses and validation scores against the step, as a PNG at `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    panels = (
        ("Loss", ("classification_loss", "segmentation_loss", "activation_loss")),
        ("Validation, prompt source cam", ("validation_dice", "false_mask_rate", "score")),
    )
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            points = [(line["step"], line[name]) for line in history if name in line]
            if any(value for _, value in points):
                axis.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1.4)
        axis.set(title=title, xlabel="step", ylim=(0, None))
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(frameon=False)
    with atomic(path) as beside:
        figure.savefig(beside, dpi=110)
    pyplot.close(figure)
