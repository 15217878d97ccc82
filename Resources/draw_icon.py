"""Draws the icon, 128 x 128: a liver with its class activation map as heat, inside the box that prompts SAM.

python Resources/draw_icon.py
"""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TARGETS = ("SAMMix.png", "SAMMix/Resources/Icons/SAMMix.png")

# A closed outline of cubic Bezier curves, in pixels from the lower left; the right lobe is on the left, as in a CT.
LIVER = (
    (22, 44),
    *((18, 74), (32, 97), (58, 101)),  # dome of the right lobe
    *((78, 104), (94, 93), (107, 86)),  # over to the left lobe's tip
    *((115, 81), (111, 71), (100, 70)),
    *((88, 69), (80, 64), (73, 58)),  # the visceral surface, with the notch of the porta hepatis
    *((66, 52), (64, 56), (61, 47)),
    *((56, 32), (44, 22), (33, 25)),  # the right lobe's lower edge
    *((24, 27), (23, 34), (22, 44)),
)
BOX = (14, 17, 114, 110)  # left, bottom, right, top
CORNER = 18  # length of a corner's arms


def draw() -> None:
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path as Outline

    figure = Figure(figsize=(1.28, 1.28), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 128), ylim=(0, 128))
    axes.set_axis_off()
    axes.add_patch(FancyBboxPatch((4, 4), 120, 120, "round,pad=0,rounding_size=24", facecolor="#14202e", linewidth=0))

    outline = Outline(LIVER, [Outline.MOVETO] + [Outline.CURVE4] * (len(LIVER) - 1))
    y, x = np.mgrid[0:128:0.5, 0:128:0.5]
    heat = np.exp(-(((x - 50) / 36) ** 2 + ((y - 70) / 29) ** 2))
    picture = axes.imshow(
        0.28 + 0.70 * heat, cmap=colormaps["inferno"], vmin=0, vmax=1, origin="lower", extent=(0, 128, 0, 128), zorder=2
    )
    picture.set_clip_path(outline, axes.transData)
    axes.add_patch(
        PathPatch(outline, facecolor="none", edgecolor="#ffffff", linewidth=2.2, joinstyle="round", zorder=3)
    )

    left, bottom, right, top = BOX
    for i, inward_x in ((left, CORNER), (right, -CORNER)):
        for j, inward_y in ((bottom, CORNER), (top, -CORNER)):
            axes.plot(
                (i + inward_x, i, i), (j, j, j + inward_y), color="#ffd23f", linewidth=4.2, solid_capstyle="round"
            )
    FigureCanvasAgg(figure)
    for target in TARGETS:
        figure.savefig(REPOSITORY / target, transparent=True, metadata={"Software": None})


if __name__ == "__main__":
    draw()
