"""Implicit shapes: signed distances in mm, negative inside, at coordinates (x, y, z)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from SAMMixLib.data.phantom.canvas import Canvas

Point = Sequence[float] | np.ndarray


class Ellipsoid(NamedTuple):
    """Centre and radii in mm, tilt about z in degrees (from x to y)."""

    centre: Point
    radii: Point
    tilt: float = 0.0

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """To first order."""
        centre, radii = self.centre, self.radii
        cos, sin = np.cos(np.radians(self.tilt)), np.sin(np.radians(self.tilt))
        dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
        u, v, w = (cos * dx + sin * dy) / radii[0], (cos * dy - sin * dx) / radii[1], dz / radii[2]
        value = np.sqrt(u**2 + v**2 + w**2)
        slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2) + 1e-6
        return value * (value - 1) / slope


class Tube(NamedTuple):
    """A tapering tube with round ends; points and radii in mm."""

    start: Point
    end: Point
    radius_start: float
    radius_end: float

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        start, axis = self.start, np.subtract(self.end, self.start)
        dx, dy, dz = x - start[0], y - start[1], z - start[2]
        t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / (axis @ axis), 0, 1)
        gap = np.sqrt((dx - t * axis[0]) ** 2 + (dy - t * axis[1]) ** 2 + (dz - t * axis[2]) ** 2)
        return gap - (self.radius_start + t * (self.radius_end - self.radius_start))


def smooth_union(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    """The minimum of two distances with the crease between them filled (Quilez's polynomial smooth minimum)."""
    return np.minimum(a, b) - np.clip(round_mm - np.abs(a - b), 0, None) ** 2 / (4 * round_mm)


def smooth_common(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    """The intersection of two shapes with a rounded edge."""
    return -smooth_union(-a, -b, round_mm)


def superellipse(x, y, half_width: float, depths: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """f(x, y), 1 on the edge and growing linearly outwards, and the length of its gradient; `depths` to front, back."""
    power = 2.3
    depth = np.where(y < 0, *depths)
    u, v = np.abs(x) / half_width, np.abs(y) / depth
    value = (u**power + v**power) ** (1 / power) + 1e-3
    slope = np.hypot((u / value) ** (power - 1) / half_width, (v / value) ** (power - 1) / depth)
    return value, np.maximum(slope, 1e-3)


def height_field(height: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Distance above a surface z = ``height`` [j, i]; negative below."""
    by_y, by_x = np.gradient(height, canvas.axes[1], canvas.axes[0])
    return (canvas.z - height) / np.sqrt(1 + by_x**2 + by_y**2)
