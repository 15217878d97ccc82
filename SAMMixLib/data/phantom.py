"""A drawn abdomen: a CT with an exact liver mask that needs no patient, for tests, demos and the manual.

Anatomy is written in millimetres of one standard patient: x to the left from the midline, y to posterior from the
middle of the body, z to superior from the porta hepatis. Organs are implicit shapes, arrays of approximate signed
distances in mm (negative inside), painted one over the other like layers. Each seed is another patient: another body
size, other vessels, bowel and noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from SAMMixLib.errors import SAMMixError

FIELD_OF_VIEW = (372.0, 372.0, 320.0)  # mm
TISSUES = {  # name: (label, HU in the portal-venous phase)
    "air": (0, -1000),
    "liver": (1, 108),
    "spleen": (2, 122),
    "kidney": (3, 185),
    "stomach": (4, 25),
    "gallbladder": (5, 10),
    "aorta": (6, 152),
    "vena cava": (7, 146),
    "pancreas": (8, 92),
    "bowel": (9, 38),
    "lung": (10, -860),
    "heart": (11, 132),
    "bone": (12, 420),
    "muscle": (13, 58),
    "fat": (14, -102),
    "skin": (15, 40),
    "portal vein": (16, 155),
    "table": (17, 140),
}
LABELS = {name: label for name, (label, _) in TISSUES.items()}
NOISE_SD = 13.0  # HU
TEXTURE_SD = 3.0  # HU, the slow waves inside an organ
POINT_SPREAD = (1.8, 0.7, 0.7)  # mm, sigma along z, y, x

Point = tuple[float, float, float]
Ellipsoid = tuple[Point, Point, float]
"""Centre and radii in mm, tilt about z in degrees (from x to y)."""

ORGANS = (
    ("pancreas", (-22, -18, -32), (17, 15, 20), 0),
    ("pancreas", (6, -22, -18), (24, 10, 13), -8),
    ("pancreas", (42, -8, -8), (32, 10, 12), 25),
    ("bowel", (-38, -14, -40), (13, 16, 26), 0),
    ("muscle", (-38, 40, -130), (22, 24, 95), 0),
    ("muscle", (38, 40, -130), (22, 24, 95), 0),
)
KIDNEYS: tuple[Ellipsoid, ...] = (((-68, 34, -68), (28, 32, 56), -35), ((66, 32, -56), (28, 32, 58), 35))
RENAL_IMPRESSION: Ellipsoid = ((-58, 46, -70), (42, 42, 62), 0)
GALLBLADDER: Ellipsoid = ((-58, -42, -34), (13, 27, 25), 25)
SPLEEN: Ellipsoid = ((106, 32, 4), (46, 40, 60), -30)
STOMACH: tuple[Ellipsoid, ...] = (
    ((66, 4, 34), (36, 34, 34), 0),
    ((58, -34, 6), (30, 30, 42), 0),
    ((22, -54, -26), (34, 20, 20), 0),
)
HEART: Ellipsoid = ((24, -36, 100), (62, 46, 56), -20)
CHAMBERS: tuple[Ellipsoid, ...] = (
    ((42, -42, 102), (34, 17, 36), -25),
    ((-4, -48, 100), (26, 24, 34), 0),
    ((10, -10, 112), (30, 15, 24), 0),
)
COLON = (  # along its length: (x, y, z), radius
    ((-108, 6, -150), 24), ((-106, 0, -118), 22), ((-88, -30, -88), 20), ((-72, -62, -78), 19), ((-34, -72, -76), 19),
    ((8, -74, -70), 18), ((46, -72, -58), 18), ((84, -54, -36), 18), ((106, -14, -30), 18), ((112, 14, -70), 17),
    ((110, 16, -112), 17), ((98, 4, -150), 19),
)  # fmt: skip

# The liver's edge towards the midline and its left lobe's tip, along z (mm).
RIGHT_LOBE_EDGE = (  # z, x
    (-110, -260), (-98, -150), (-90, -126), (-80, -104), (-66, -86), (-50, -75), (-34, -60), (-20, -42), (-4, -16),
    (8, 0),
)  # fmt: skip
LEFT_LOBE_EDGE = (  # z, x
    (-70, -260), (-40, -110), (-30, -74), (-20, -34), (-10, 4), (2, 30), (14, 46), (26, 54), (36, 40), (48, -6),
)  # fmt: skip


@dataclass(frozen=True)
class Phantom:
    """A drawn CT and its truth, all three on one grid in LPS order with identity direction."""

    ct: sitk.Image  # int16, HU
    labels: sitk.Image  # uint8, see LABELS
    liver: sitk.Image  # uint8, 0 or 1; vessels inside the liver count as liver


def make_phantom(
    seed: int = 0,
    size: tuple[int, int, int] = (256, 256, 64),
    spacing: tuple[float, float, float] | None = None,
) -> Phantom:
    """Draw patient number ``seed`` on a grid of ``size`` voxels (i to left, j to posterior, k to superior).

    ``spacing`` is in mm; by default the grid fills the field of view of 372 x 372 x 320 mm, which begins above the
    liver, in the chest, and ends below it, at the iliac bones. The same arguments give the same voxels.

    Raises:
        SAMMixError: ``size`` is not three numbers of at least 2, or ``spacing`` not three positive numbers.

    Example:
        >>> phantom = make_phantom(seed=1, size=(64, 64, 16))
        >>> phantom.ct.GetSize(), phantom.liver.GetSpacing()
        ((64, 64, 16), (5.8125, 5.8125, 20.0))
    """
    if len(size) != 3 or min(size) < 2:
        raise SAMMixError(f"phantom: size {size} is not three numbers of 2 or more; give voxels along i, j and k")
    if spacing is None:
        spacing = (FIELD_OF_VIEW[0] / size[0], FIELD_OF_VIEW[1] / size[1], FIELD_OF_VIEW[2] / size[2])
    if len(spacing) != 3 or min(spacing) <= 0:
        raise SAMMixError(f"phantom: spacing {spacing} is not three positive numbers; give mm along i, j and k")
    random = np.random.default_rng(seed)
    canvas = Canvas(size, spacing, patient_scale=random.uniform(0.97, 1.03, 3))
    draw_patient(canvas, random)
    hu = acquire(canvas, random)
    origin = [-(n - 1) / 2 * step for n, step in zip(size, spacing, strict=True)]

    def image(array: np.ndarray) -> sitk.Image:
        result = sitk.GetImageFromArray(array)
        result.SetSpacing([float(step) for step in spacing])
        result.SetOrigin(origin)
        return result

    return Phantom(image(hu), image(canvas.labels), image((canvas.labels == LABELS["liver"]).astype(np.uint8)))


class Canvas:
    """HU and labels of every voxel [k, j, i], and the coordinates x, y, z (mm of the standard patient) to draw by."""

    def __init__(self, size, spacing, patient_scale) -> None:
        axes = [
            ((np.arange(n) - (n - 1) / 2) * step / scale).astype(np.float32)
            for n, step, scale in zip(size, spacing, patient_scale, strict=True)
        ]
        self.axes = axes
        self.x, self.y, self.z = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]
        self.spacing = spacing
        self.hu = np.full(size[::-1], TISSUES["air"][1], np.float32)
        self.labels = np.zeros(size[::-1], np.uint8)
        self.edge = 1.2 * spacing[0]  # mm over which one tissue fades into the next

    def paint(self, distance: np.ndarray, tissue: str, hu: float | None = None, box: tuple = (...,)) -> None:
        """Lay ``tissue`` over all that is inside (``distance`` < 0), fading over one pixel; ``box`` places a part."""
        label, own_hu = TISSUES[tissue]
        under = self.hu[box]
        under += np.clip(0.5 - distance / self.edge, 0, 1) * ((own_hu if hu is None else hu) - under)
        self.labels[box][np.broadcast_to(distance < 0, under.shape)] = label

    def box(self, centre, reach) -> tuple[slice, slice, slice]:
        """The part of the grid within ``reach`` mm (a number, or one for each axis) of ``centre``."""
        low, high = np.subtract(centre, reach) - self.edge, np.add(centre, reach) + self.edge
        i, j, k = (slice(*np.searchsorted(axis, (a, b))) for axis, a, b in zip(self.axes, low, high, strict=True))
        return k, j, i

    def at(self, box: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.x[:, :, box[2]], self.y[:, box[1]], self.z[box[0]]


# Shapes: signed distances in mm


def ellipsoid(x, y, z, centre, radii, tilt: float = 0.0) -> np.ndarray:
    """Distance to an ellipsoid, to first order; ``tilt`` turns it about z, in degrees."""
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
    u, v, w = (cos * dx + sin * dy) / radii[0], (cos * dy - sin * dx) / radii[1], dz / radii[2]
    value = np.sqrt(u**2 + v**2 + w**2)
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2) + 1e-6
    return value * (value - 1) / slope


def capsule(x, y, z, start, end, radius_start: float, radius_end: float) -> np.ndarray:
    """Distance to a tapering tube with round ends."""
    axis = np.subtract(end, start)
    dx, dy, dz = x - start[0], y - start[1], z - start[2]
    t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis), 0, 1)
    gap = np.sqrt((dx - t * axis[0]) ** 2 + (dy - t * axis[1]) ** 2 + (dz - t * axis[2]) ** 2)
    return gap - (radius_start + t * (radius_end - radius_start))


def smooth_union(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    """The minimum of two distances with the crease between them filled (Quilez's polynomial smooth minimum)."""
    return np.minimum(a, b) - np.clip(round_mm - np.abs(a - b), 0, None) ** 2 / (4 * round_mm)


def smooth_common(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    """The intersection of two shapes with a rounded edge."""
    return -smooth_union(-a, -b, round_mm)


def rounded_box_outline(x, y, half_width, front, back, power: float) -> tuple[np.ndarray, np.ndarray]:
    """A superellipse f(x, y) (1 on its edge, growing linearly outwards) and the length of its gradient."""
    depth = np.where(y < 0, front, back)
    u, v = np.abs(x) / half_width, np.abs(y) / depth
    value = (u**power + v**power) ** (1 / power) + 1e-3
    slope = np.hypot((u / value) ** (power - 1) / half_width, (v / value) ** (power - 1) / depth)
    return value, np.maximum(slope, 1e-3)


def height_field(height: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Distance above a surface z = ``height`` [j, i]; negative below."""
    by_y, by_x = np.gradient(height, canvas.axes[1], canvas.axes[0])
    return (canvas.z - height) / np.sqrt(1 + by_x**2 + by_y**2)


# The patient, from the outside in


def draw_patient(canvas: Canvas, random: np.random.Generator) -> None:
    cavity = draw_body_wall(canvas)
    above = diaphragm(canvas)
    abdomen = np.maximum(cavity, above) + 1.5
    canvas.paint(cavity, "muscle")
    canvas.paint(abdomen, "fat")
    draw_chest(canvas, np.maximum(cavity, -above), random)
    draw_ribs(canvas, cavity)
    draw_bowel(canvas, abdomen, random)
    draw_ellipsoids(canvas, ORGANS, abdomen)
    draw_stomach(canvas, abdomen)
    draw_spleen(canvas, abdomen)
    draw_liver(canvas, abdomen, random)
    draw_kidneys(canvas, abdomen)
    draw_spine(canvas)
    draw_pelvis(canvas)
    draw_great_vessels(canvas)
    draw_table(canvas)


def draw_body_wall(canvas: Canvas) -> np.ndarray:
    """Skin, fat and muscle; gives back the distance to the cavity that holds lungs and viscera."""
    x, y, z = canvas.x, canvas.y, canvas.z
    girth = np.interp(z, (-170, -110, -40, 40, 170), (1.0, 0.97, 0.97, 1.0, 0.98)).astype(np.float32)
    outline, slope = rounded_box_outline(x, y, 166, 113, 106, 2.3)
    body = (outline - girth) / slope
    canvas.paint(body, "skin")
    canvas.paint(body + 2.4, "fat")
    fat = np.interp(z, (-120, 40), (15, 9)) + 4 * np.exp(-(((np.abs(x) - 130) / 40) ** 2)) * (y > 0)
    canvas.paint(body + fat, "muscle")
    outline, slope = rounded_box_outline(x, y + 6, 139, 88, 80, 2.3)
    spine = 41 - np.hypot(x * 0.85, y - 54)
    lower_back = 52 - np.hypot(x * 0.62, y - 92)
    return smooth_common((outline - girth) / slope, np.maximum(spine, lower_back), 18)


def diaphragm(canvas: Canvas) -> np.ndarray:
    """Distance above the diaphragm: a higher right dome over the liver, a lower left one over stomach and spleen."""
    x, y = canvas.x[0], canvas.y[0]
    right = 72 - 62 * (((x + 83) / np.where(x < -83, 76, 128)) ** 2 + ((y + 35) / 86) ** 2)
    left = 60 - 62 * (((x - 76) / np.where(x > 76, 76, 116)) ** 2 + ((y + 25) / 86) ** 2)
    return height_field(np.maximum(smooth_common(right, left, 14), -45), canvas)


def draw_chest(canvas: Canvas, chest: np.ndarray, random: np.random.Generator) -> None:
    """Lungs with their vessels, the heart in its fat, the sternum."""
    x, y, z = canvas.x, canvas.y, canvas.z
    canvas.paint(chest, "fat")
    mediastinum = np.minimum(
        ellipsoid(x, y, z, (2, -60, 120), (26, 34, 400)), ellipsoid(x, y, z, (4, 10, 120), (32, 46, 400))
    )
    canvas.paint(smooth_common(chest, -mediastinum, 12), "lung")
    inner = chest + 6
    for side in (-1, 1):
        hilum = np.array((side * 34, 4, 122))
        for direction in random.normal((side * 1.0, 0.3, -0.5), (0.4, 0.6, 0.7), (70, 3)):
            end = hilum + random.uniform(50, 110) * direction / np.linalg.norm(direction)
            draw_tube(canvas, hilum, end, 4, 1.3, "lung", 60, inner)
    draw_tube(canvas, (-6, -36, 110), (-14, -38, 180), 16, 15, "aorta")
    draw_tube(canvas, (22, -52, 120), (18, -34, 180), 14, 12, "heart", 155)
    draw_tube(canvas, (-34, -22, 120), (-34, -26, 180), 10, 9, "vena cava")
    draw_ellipsoids(canvas, [("fat", HEART[0], np.add(HEART[1], 6), HEART[2])], chest)
    draw_ellipsoids(canvas, [("heart", *HEART)], chest + 1)
    draw_ellipsoids(canvas, [("heart", *chamber) for chamber in CHAMBERS], chest + 4, hu=158)
    box = canvas.box((0, -95, 120), (24, 6, 75))
    draw_bone(canvas, ellipsoid(*canvas.at(box), (0, -95, 120), (24, 6, 75)), marrow=170, box=box)


def draw_ribs(canvas: Canvas, cavity: np.ndarray) -> None:
    """Flat tubes in the wall, falling from back to front, one every 27 mm; the front ends are cartilage."""
    x, y, z = canvas.x, canvas.y, canvas.z
    along = z + 0.55 * y - 0.12 * np.abs(x)
    beside = (along + 13.5) % 27 - 13.5
    ribs = np.sqrt((cavity - 6.5) ** 2 * 1.9 + beside**2 * 0.62) - 5
    margin = -72 - 0.7 * np.minimum(y, 0) - 0.25 * np.minimum(np.abs(x) - 110, 0) - z
    ribs = np.maximum(np.maximum(ribs, margin), np.maximum(18 - np.abs(x), -y - 104))
    cartilage = (y < -62) & (np.abs(x) < 95)
    canvas.paint(np.where(cartilage, ribs, 99), "muscle", hu=105)
    draw_bone(canvas, np.where(cartilage, 99, ribs), marrow=260)


def draw_bone(canvas: Canvas, distance: np.ndarray, marrow: float, box: tuple = (...,)) -> None:
    canvas.paint(distance, "bone", hu=560, box=box)
    canvas.paint(distance + 2.2, "bone", hu=marrow, box=box)


def draw_ellipsoids(canvas: Canvas, organs: Iterable, inside: np.ndarray, hu: float | None = None) -> None:
    """Organs from a table (tissue, centre, radii, tilt), cut off where ``inside`` is positive."""
    for tissue, centre, radii, tilt in organs:
        box = canvas.box(centre, max(radii))
        canvas.paint(np.maximum(ellipsoid(*canvas.at(box), centre, radii, tilt), inside[box]), tissue, hu, box)


def draw_tube(canvas: Canvas, start, end, radius_start, radius_end, tissue, hu=None, inside=None) -> None:
    reach = np.abs(np.subtract(end, start)) / 2 + max(radius_start, radius_end)
    box = canvas.box(np.add(start, end) / 2, reach)
    distance = capsule(*canvas.at(box), start, end, radius_start, radius_end)
    canvas.paint(distance if inside is None else np.maximum(distance, inside[box]), tissue, hu, box)


def draw_bowel(canvas: Canvas, abdomen: np.ndarray, random: np.random.Generator) -> None:
    """Loops of small bowel between the flanks, then the colon as a frame around them with gas on top."""
    inner = abdomen + 2
    for _ in range(170):
        centre = random.uniform((-88, -72, -165), (92, 4, -42))
        radii = random.uniform(8, 15, 3)
        tilt = random.uniform(0, 180)
        draw_loop(canvas, centre, radii * (1.5, 1, 1), tilt, inner, random.uniform(10, 60), random.random() < 0.2)
    draw_colon(canvas, abdomen)
    for start in random.uniform((-60, -50, -150), (70, 10, -20), (70, 3)):  # mesenteric vessels
        draw_tube(canvas, start, start + random.normal(0, 14, 3), 2.2, 1.2, "bowel", 120, abdomen)


def draw_colon(canvas: Canvas, abdomen: np.ndarray) -> None:
    """The frame: first the wall of all pieces, then their content, then gas in the front of each."""
    pieces = []
    for (start, radius), (end, next_radius) in pairwise(COLON):
        box = canvas.box(np.add(start, end) / 2, np.abs(np.subtract(end, start)) / 2 + radius + 5)
        x, y, z = canvas.at(box)
        haustra = 2.5 * np.sin(x / 6) * np.cos(z / 8)
        tube = np.maximum(capsule(x, y, z, start, end, radius, next_radius) + haustra, abdomen[box] + 1)
        pieces.append((box, tube, np.maximum(tube + 3, y - (start[1] + end[1]) / 2 + 0.3 * radius)))
    for box, tube, _ in pieces:
        canvas.paint(tube, "bowel", 85, box)
    for box, tube, _ in pieces:
        canvas.paint(tube + 2.5, "bowel", -5, box)
    for box, _, gas in pieces:
        canvas.paint(gas, "bowel", -880, box)


def draw_loop(canvas: Canvas, centre, radii, tilt, inside, content_hu, has_gas) -> None:
    """A piece of gut: wall, content, and gas where it collects, in front."""
    box = canvas.box(centre, max(radii))
    loop = np.maximum(ellipsoid(*canvas.at(box), centre, radii, tilt), inside[box])
    canvas.paint(loop, "bowel", 85, box)
    canvas.paint(loop + 2.5, "bowel", content_hu, box)
    if has_gas:
        canvas.paint(np.maximum(loop + 3, canvas.y[:, box[1]] - centre[1] + 0.15 * radii[1]), "bowel", -880, box)


def draw_stomach(canvas: Canvas, abdomen: np.ndarray) -> None:
    """A wall around fluid, with air above one level in the front."""
    box = canvas.box((48, -22, 6), (56, 60, 66))
    x, y, z = canvas.at(box)
    stomach = smooth_union(ellipsoid(x, y, z, *STOMACH[0]), ellipsoid(x, y, z, *STOMACH[1]), 15)
    stomach = np.maximum(smooth_union(stomach, ellipsoid(x, y, z, *STOMACH[2]), 15), abdomen[box] + 2)
    canvas.paint(stomach, "stomach", 80, box)
    canvas.paint(stomach + 4, "stomach", box=box)
    canvas.paint(np.maximum(stomach + 4, y + 47), "stomach", -960, box)


def draw_spleen(canvas: Canvas, abdomen: np.ndarray) -> None:
    box = canvas.box(SPLEEN[0], max(SPLEEN[1]))
    x, y, z = canvas.at(box)
    hilum = ellipsoid(x, y, z, (66, 8, 0), (36, 32, 70), 30)
    spleen = smooth_common(ellipsoid(x, y, z, *SPLEEN), abdomen[box], 8)
    canvas.paint(smooth_common(spleen, -hilum, 10), "spleen", box=box)


def liver_shape(x, y, z, abdomen: np.ndarray) -> np.ndarray:
    """A wedge that fills the right dome: wall and diaphragm bound it outside, a rising visceral face inside."""
    right_edge = np.interp(z, *np.transpose(RIGHT_LOBE_EDGE)).astype(np.float32)
    left_edge = np.interp(z, *np.transpose(LEFT_LOBE_EDGE)).astype(np.float32)
    right = 0.8 * (x - right_edge + 0.004 * (y - 18) ** 2)
    left = smooth_common(0.75 * (x - left_edge), 0.85 * (y + 0.45 * x + 4), 14)
    liver = smooth_common(smooth_union(right, left, 16), abdomen, 8)
    hollows = (
        capsule(x, y, z, (-4, -14, -16), (-40, -6, -10), 11, 4),  # porta hepatis
        ellipsoid(x, y, z, (-6, -78, -24), (4, 34, 28), 5),  # fissure of the round ligament
        capsule(x, y, z, (-14, 20, -24), (-16, 16, 60), 14, 15),  # groove of the vena cava
        ellipsoid(x, y, z, *RENAL_IMPRESSION),
        ellipsoid(x, y, z, *GALLBLADDER),
    )
    for hollow in hollows:
        liver = smooth_common(liver, -hollow, 5)
    return liver


def draw_liver(canvas: Canvas, abdomen: np.ndarray, random: np.random.Generator) -> None:
    """The liver, its veins and portal tree, and the gallbladder in its fossa."""
    inside = np.full_like(abdomen, 99)
    box = canvas.box((-40, -10, -10), (120, 110, 100))
    liver = liver_shape(*canvas.at(box), abdomen[box])
    canvas.paint(liver, "liver", box=box)
    inside[box] = liver + 5
    for end in ((-118, 10, 0), (-70, -62, 8), (14, -50, 22)):
        draw_branches(canvas, np.array((-24, 10, 42)), np.array(end), 5.0, inside, random)
    for end in ((-112, 14, -34), (-104, -26, 22), (-84, -50, -14), (20, -52, 14)):
        draw_branches(canvas, np.array((-30, -8, -8)), np.array(end), 5.5, inside, random)
    draw_tube(canvas, (-12, -14, -24), (-34, -7, -8), 6.5, 6, "portal vein")
    draw_ellipsoids(canvas, [("gallbladder", *GALLBLADDER)], abdomen)


def draw_branches(canvas: Canvas, start, end, radius, inside, random, depth: int = 3) -> None:
    """A vessel inside the liver that forks at its middle and at its end."""
    draw_tube(canvas, start, end, radius, 0.7 * radius, "liver", 150, inside)
    if depth == 0:
        return
    for root in (start + 0.55 * (end - start), end):
        side = random.normal(0, 0.5, 3) * np.linalg.norm(end - start)
        draw_branches(canvas, root, root + 0.45 * (end - start) + side, 0.62 * radius, inside, random, depth - 1)


def draw_kidneys(canvas: Canvas, abdomen: np.ndarray) -> None:
    """Bright cortex, darker pyramids, fat in the sinus that opens to the midline."""
    for centre, radii, tilt in KIDNEYS:
        box = canvas.box(centre, max(radii))
        x, y, z = canvas.at(box)
        kidney = np.maximum(ellipsoid(x, y, z, centre, radii, tilt), abdomen[box])
        medial = -np.sign(centre[0])
        sinus = ellipsoid(x, y, z, np.add(centre, (medial * 15, -6, 0)), (16, 9, 24), tilt)
        canvas.paint(kidney, "kidney", box=box)
        waves = 4 * np.sin(z / 4.5) * np.sin(6 * np.arctan2(y - centre[1], x - centre[0]))
        canvas.paint(np.maximum(kidney + 9 + waves, -sinus), "kidney", 150, box)
        canvas.paint(sinus, "fat", -70, box)


def draw_spine(canvas: Canvas) -> None:
    """Vertebral bodies with discs, the canal in its arch, transverse and spinous processes, one set every 33 mm."""
    box = canvas.box((0, 62, 0), (52, 55, 400))
    x, y, z = canvas.at(box)
    level = (z + 16.5) % 33 - 16.5
    body = np.sqrt((x / 23) ** 2 + ((y - 36) / 18) ** 2) * 20 - 20
    draw_bone(canvas, body, marrow=205, box=box)
    canvas.paint(np.maximum(body, 13 - np.abs(level)), "muscle", 95, box)
    arch = np.hypot(x, y - 61) - 15 + 0.15 * np.abs(level)
    process = capsule(np.abs(x), y, level * 0.8, (10, 62, 0), (36, 70, 0), 6, 4)
    spinous = capsule(x, y, level * 0.5, (0, 72, 0), (0, 92, 0), 4.5, 4)
    draw_bone(canvas, np.minimum(np.minimum(arch, process), spinous), marrow=330, box=box)
    canvas.paint(np.hypot(x, y - 60) - 8.5, "muscle", 35, box)


def draw_pelvis(canvas: Canvas) -> None:
    """The upper rims of the iliac bones, two oblique plates."""
    box = canvas.box((0, 57, -185), (200, 60, 65))
    x, y, z = canvas.at(box)
    side = np.abs(x)
    plate = np.abs(0.74 * side + 0.67 * y - 124) - 4.5
    wing = np.maximum(plate, ellipsoid(side, y, z, (116, 57, -185), (40, 55, 58)))
    draw_bone(canvas, wing, marrow=230, box=box)


def draw_great_vessels(canvas: Canvas) -> None:
    draw_tube(canvas, (16, 14, -150), (14, 12, 170), 10, 12, "aorta")
    draw_tube(canvas, (-20, 14, -160), (-22, 10, -20), 10, 11, "vena cava")
    draw_tube(canvas, (-22, 10, -20), (-24, 4, 62), 11, 13, "vena cava")
    draw_tube(canvas, (-14, -14, -26), (56, 2, -4), 5.5, 4, "portal vein")
    draw_tube(canvas, (16, 12, -50), (56, 22, -56), 3.5, 3, "vena cava")
    draw_tube(canvas, (-24, 12, -62), (-58, 24, -66), 3.5, 3, "vena cava")


def draw_table(canvas: Canvas) -> None:
    """Two thin curved sheets under the back."""
    x, y = canvas.x, canvas.y
    for depth, bend in ((119, 2000), (141, 1500)):
        sheet = np.abs(y - depth + x**2 / bend) - 1.7
        canvas.paint(sheet, "table")


def acquire(canvas: Canvas, random: np.random.Generator) -> np.ndarray:
    """The scanner's part: point spread, slow unevenness and correlated noise. int16 HU [k, j, i]."""
    sigma = np.divide(POINT_SPREAD, canvas.spacing[::-1])
    hu = ndimage.gaussian_filter(canvas.hu, sigma, truncate=3)
    shape = hu.shape
    waves = random.normal(
        0, 1, [max(2, round(n * step / 18)) for n, step in zip(shape, canvas.spacing[::-1], strict=True)]
    )
    waves = ndimage.zoom(
        waves.astype(np.float32), np.divide(shape, waves.shape), order=1, grid_mode=True, mode="nearest"
    )
    noise = ndimage.gaussian_filter(random.standard_normal(shape, np.float32), (0, 0.6, 0.6), truncate=3)
    hu += TEXTURE_SD * waves + NOISE_SD / noise.std() * noise
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
