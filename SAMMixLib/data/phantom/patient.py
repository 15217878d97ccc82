"""The anatomy, from the outside in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from SAMMixLib.data.phantom.canvas import Canvas
from SAMMixLib.data.phantom.shapes import Ellipsoid, Tube, height_field, smooth_common, smooth_union, superellipse

ORGANS = (
    ("pancreas", Ellipsoid((-22, -18, -32), (17, 15, 20), 0)),
    ("pancreas", Ellipsoid((6, -22, -18), (24, 10, 13), -8)),
    ("pancreas", Ellipsoid((42, -8, -8), (32, 10, 12), 25)),
    ("bowel", Ellipsoid((-38, -14, -40), (13, 16, 26), 0)),
    ("muscle", Ellipsoid((-38, 40, -130), (22, 24, 95), 0)),
    ("muscle", Ellipsoid((38, 40, -130), (22, 24, 95), 0)),
)
KIDNEYS = (Ellipsoid((-68, 34, -68), (28, 32, 56), -35), Ellipsoid((66, 32, -56), (28, 32, 58), 35))
RENAL_IMPRESSION = Ellipsoid((-58, 46, -70), (42, 42, 62), 0)
GALLBLADDER = Ellipsoid((-58, -42, -34), (13, 27, 25), 25)
SPLEEN = Ellipsoid((106, 32, 4), (46, 40, 60), -30)
STOMACH = (
    Ellipsoid((66, 4, 34), (36, 34, 34), 0),
    Ellipsoid((58, -34, 6), (30, 30, 42), 0),
    Ellipsoid((22, -54, -26), (34, 20, 20), 0),
)
HEART = Ellipsoid((24, -36, 100), (62, 46, 56), -20)
CHAMBERS = (
    Ellipsoid((42, -42, 102), (34, 17, 36), -25),
    Ellipsoid((-4, -48, 100), (26, 24, 34), 0),
    Ellipsoid((10, -10, 112), (30, 15, 24), 0),
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
    outline, slope = superellipse(x, y, 166, (113, 106))
    body = (outline - girth) / slope
    canvas.paint(body, "skin")
    canvas.paint(body + 2.4, "fat")
    fat = np.interp(z, (-120, 40), (15, 9)) + 4 * np.exp(-(((np.abs(x) - 130) / 40) ** 2)) * (y > 0)
    canvas.paint(body + fat, "muscle")
    outline, slope = superellipse(x, y + 6, 139, (88, 80))
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
        Ellipsoid((2, -60, 120), (26, 34, 400)).distance(x, y, z),
        Ellipsoid((4, 10, 120), (32, 46, 400)).distance(x, y, z),
    )
    canvas.paint(smooth_common(chest, -mediastinum, 12), "lung")
    inner = chest + 6
    for side in (-1, 1):
        hilum = np.array((side * 34, 4, 122))
        for direction in random.normal((side * 1.0, 0.3, -0.5), (0.4, 0.6, 0.7), (70, 3)):
            end = hilum + random.uniform(50, 110) * direction / np.linalg.norm(direction)
            draw_tube(canvas, Tube(hilum, end, 4, 1.3), "lung", 60, inner)
    draw_tube(canvas, Tube((-6, -36, 110), (-14, -38, 180), 16, 15), "aorta")
    draw_tube(canvas, Tube((22, -52, 120), (18, -34, 180), 14, 12), "heart", 155)
    draw_tube(canvas, Tube((-34, -22, 120), (-34, -26, 180), 10, 9), "vena cava")
    draw_ellipsoids(canvas, [("fat", HEART._replace(radii=np.add(HEART.radii, 6)))], chest)
    draw_ellipsoids(canvas, [("heart", HEART)], chest + 1)
    draw_ellipsoids(canvas, [("heart", chamber) for chamber in CHAMBERS], chest + 4, hu=158)
    box = canvas.box((0, -95, 120), (24, 6, 75))
    draw_bone(canvas, Ellipsoid((0, -95, 120), (24, 6, 75)).distance(*canvas.at(box)), marrow=170, box=box)


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


def draw_ellipsoids(
    canvas: Canvas, organs: Iterable[tuple[str, Ellipsoid]], inside: np.ndarray, hu: float | None = None
) -> None:
    """Organs from a table (tissue, shape), cut off where ``inside`` is positive."""
    for tissue, shape in organs:
        box = canvas.box(shape.centre, max(shape.radii))
        canvas.paint(np.maximum(shape.distance(*canvas.at(box)), inside[box]), tissue, hu, box)


def draw_tube(canvas: Canvas, tube: Tube, tissue: str, hu: float | None = None, inside=None) -> None:
    reach = np.abs(np.subtract(tube.end, tube.start)) / 2 + max(tube.radius_start, tube.radius_end)
    box = canvas.box(np.add(tube.start, tube.end) / 2, reach)
    distance = tube.distance(*canvas.at(box))
    canvas.paint(distance if inside is None else np.maximum(distance, inside[box]), tissue, hu, box)


def draw_bowel(canvas: Canvas, abdomen: np.ndarray, random: np.random.Generator) -> None:
    """Loops of small bowel between the flanks, then the colon as a frame around them with gas on top."""
    inner = abdomen + 2
    for _ in range(170):
        centre = random.uniform((-88, -72, -165), (92, 4, -42))
        radii = random.uniform(8, 15, 3)
        tilt = random.uniform(0, 180)
        loop = Ellipsoid(centre, radii * (1.5, 1, 1), tilt)
        draw_loop(canvas, loop, inner, content_hu=random.uniform(10, 60), has_gas=random.random() < 0.2)
    draw_colon(canvas, abdomen)
    for start in random.uniform((-60, -50, -150), (70, 10, -20), (70, 3)):  # mesenteric vessels
        draw_tube(canvas, Tube(start, start + random.normal(0, 14, 3), 2.2, 1.2), "bowel", 120, abdomen)


def draw_colon(canvas: Canvas, abdomen: np.ndarray) -> None:
    """The frame: first the wall of all pieces, then their content, then gas in the front of each."""
    pieces = []
    for (start, radius), (end, next_radius) in pairwise(COLON):
        box = canvas.box(np.add(start, end) / 2, np.abs(np.subtract(end, start)) / 2 + radius + 5)
        x, y, z = canvas.at(box)
        haustra = 2.5 * np.sin(x / 6) * np.cos(z / 8)
        tube = np.maximum(Tube(start, end, radius, next_radius).distance(x, y, z) + haustra, abdomen[box] + 1)
        pieces.append((box, tube, np.maximum(tube + 3, y - (start[1] + end[1]) / 2 + 0.3 * radius)))
    for box, tube, _ in pieces:
        canvas.paint(tube, "bowel", 85, box)
    for box, tube, _ in pieces:
        canvas.paint(tube + 2.5, "bowel", -5, box)
    for box, _, gas in pieces:
        canvas.paint(gas, "bowel", -880, box)


def draw_loop(canvas: Canvas, shape: Ellipsoid, inside: np.ndarray, *, content_hu: float, has_gas: bool) -> None:
    """A piece of gut: wall, content, and gas where it collects, in front."""
    box = canvas.box(shape.centre, max(shape.radii))
    loop = np.maximum(shape.distance(*canvas.at(box)), inside[box])
    canvas.paint(loop, "bowel", 85, box)
    canvas.paint(loop + 2.5, "bowel", content_hu, box)
    if has_gas:
        front = canvas.y[:, box[1]] - shape.centre[1] + 0.15 * shape.radii[1]
        canvas.paint(np.maximum(loop + 3, front), "bowel", -880, box)


def draw_stomach(canvas: Canvas, abdomen: np.ndarray) -> None:
    """A wall around fluid, with air above one level in the front."""
    box = canvas.box((48, -22, 6), (56, 60, 66))
    x, y, z = canvas.at(box)
    stomach = smooth_union(STOMACH[0].distance(x, y, z), STOMACH[1].distance(x, y, z), 15)
    stomach = np.maximum(smooth_union(stomach, STOMACH[2].distance(x, y, z), 15), abdomen[box] + 2)
    canvas.paint(stomach, "stomach", 80, box)
    canvas.paint(stomach + 4, "stomach", box=box)
    canvas.paint(np.maximum(stomach + 4, y + 47), "stomach", -960, box)


def draw_spleen(canvas: Canvas, abdomen: np.ndarray) -> None:
    box = canvas.box(SPLEEN.centre, max(SPLEEN.radii))
    x, y, z = canvas.at(box)
    hilum = Ellipsoid((66, 8, 0), (36, 32, 70), 30).distance(x, y, z)
    spleen = smooth_common(SPLEEN.distance(x, y, z), abdomen[box], 8)
    canvas.paint(smooth_common(spleen, -hilum, 10), "spleen", box=box)


def liver_shape(x, y, z, abdomen: np.ndarray) -> np.ndarray:
    """A wedge that fills the right dome: wall and diaphragm bound it outside, a rising visceral face inside."""
    right_edge = np.interp(z, *np.transpose(RIGHT_LOBE_EDGE)).astype(np.float32)
    left_edge = np.interp(z, *np.transpose(LEFT_LOBE_EDGE)).astype(np.float32)
    right = 0.8 * (x - right_edge + 0.004 * (y - 18) ** 2)
    left = smooth_common(0.75 * (x - left_edge), 0.85 * (y + 0.45 * x + 4), 14)
    liver = smooth_common(smooth_union(right, left, 16), abdomen, 8)
    hollows = (
        Tube((-4, -14, -16), (-40, -6, -10), 11, 4).distance(x, y, z),  # porta hepatis
        Ellipsoid((-6, -78, -24), (4, 34, 28), 5).distance(x, y, z),  # fissure of the round ligament
        Tube((-14, 20, -24), (-16, 16, 60), 14, 15).distance(x, y, z),  # groove of the vena cava
        RENAL_IMPRESSION.distance(x, y, z),
        GALLBLADDER.distance(x, y, z),
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
        draw_branches(canvas, vessel((-24, 10, 42), end, 5.0), inside, random)
    for end in ((-112, 14, -34), (-104, -26, 22), (-84, -50, -14), (20, -52, 14)):
        draw_branches(canvas, vessel((-30, -8, -8), end, 5.5), inside, random)
    draw_tube(canvas, Tube((-12, -14, -24), (-34, -7, -8), 6.5, 6), "portal vein")
    draw_ellipsoids(canvas, [("gallbladder", GALLBLADDER)], abdomen)


def vessel(start, end, radius: float) -> Tube:
    """A vessel that tapers to 0.7 of its radius."""
    return Tube(np.array(start), np.array(end), radius, 0.7 * radius)


def draw_branches(canvas: Canvas, of: Tube, inside: np.ndarray, random: np.random.Generator, depth: int = 3) -> None:
    """A vessel inside the liver that forks at its middle and at its end."""
    draw_tube(canvas, of, "liver", 150, inside)
    if depth == 0:
        return
    along = np.subtract(of.end, of.start)
    for root in (np.add(of.start, 0.55 * along), np.asarray(of.end)):
        side = random.normal(0, 0.5, 3) * np.linalg.norm(along)
        branch = vessel(root, root + 0.45 * along + side, 0.62 * of.radius_start)
        draw_branches(canvas, branch, inside, random, depth - 1)


def draw_kidneys(canvas: Canvas, abdomen: np.ndarray) -> None:
    """Bright cortex, darker pyramids, fat in the sinus that opens to the midline."""
    for shape in KIDNEYS:
        centre, tilt = shape.centre, shape.tilt
        box = canvas.box(centre, max(shape.radii))
        x, y, z = canvas.at(box)
        kidney = np.maximum(shape.distance(x, y, z), abdomen[box])
        medial = -np.sign(centre[0])
        sinus = Ellipsoid(np.add(centre, (medial * 15, -6, 0)), (16, 9, 24), tilt).distance(x, y, z)
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
    process = Tube((10, 62, 0), (36, 70, 0), 6, 4).distance(np.abs(x), y, level * 0.8)
    spinous = Tube((0, 72, 0), (0, 92, 0), 4.5, 4).distance(x, y, level * 0.5)
    draw_bone(canvas, np.minimum(np.minimum(arch, process), spinous), marrow=330, box=box)
    canvas.paint(np.hypot(x, y - 60) - 8.5, "muscle", 35, box)


def draw_pelvis(canvas: Canvas) -> None:
    """The upper rims of the iliac bones, two oblique plates."""
    box = canvas.box((0, 57, -185), (200, 60, 65))
    x, y, z = canvas.at(box)
    side = np.abs(x)
    plate = np.abs(0.74 * side + 0.67 * y - 124) - 4.5
    wing = np.maximum(plate, Ellipsoid((116, 57, -185), (40, 55, 58)).distance(side, y, z))
    draw_bone(canvas, wing, marrow=230, box=box)


def draw_great_vessels(canvas: Canvas) -> None:
    draw_tube(canvas, Tube((16, 14, -150), (14, 12, 170), 10, 12), "aorta")
    draw_tube(canvas, Tube((-20, 14, -160), (-22, 10, -20), 10, 11), "vena cava")
    draw_tube(canvas, Tube((-22, 10, -20), (-24, 4, 62), 11, 13), "vena cava")
    draw_tube(canvas, Tube((-14, -14, -26), (56, 2, -4), 5.5, 4), "portal vein")
    draw_tube(canvas, Tube((16, 12, -50), (56, 22, -56), 3.5, 3), "vena cava")
    draw_tube(canvas, Tube((-24, 12, -62), (-58, 24, -66), 3.5, 3), "vena cava")


def draw_table(canvas: Canvas) -> None:
    """Two thin curved sheets under the back."""
    x, y = canvas.x, canvas.y
    for depth, bend in ((119, 2000), (141, 1500)):
        sheet = np.abs(y - depth + x**2 / bend) - 1.7
        canvas.paint(sheet, "table")
