"""Two kinds of box, told apart by their types: what people draw on a slice, and what SAM takes as a prompt."""

from __future__ import annotations

from typing import NamedTuple


class PixelBox(NamedTuple):
    """The first and last pixel of a slice at full resolution, both included: columns ``i``, rows ``j``."""

    i0: int
    j0: int
    i1: int
    j1: int


class EdgeBox(NamedTuple):
    """The sides of a box in pixels of the S x S square, real numbers; pixel x covers x to x + 1."""

    x0: float
    y0: float
    x1: float
    y1: float
