"""Where the voxels of an array lie: the one place for arithmetic with axes, affines and flips."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_VOXEL = 0.05  # voxels by which two grids may differ through rounding and still be one
MAX_SHEAR = 1e-3  # sine of the angle by which axes may miss 90 degrees: 0.3 mm over 300 mm


Number = TypeVar("Number", int, float)


class HasGrid(Protocol):
    """What SimpleITK's images and readers have in common."""

    def GetSize(self) -> Sequence[int]: ...
    def GetSpacing(self) -> Sequence[float]: ...
    def GetOrigin(self) -> Sequence[float]: ...
    def GetDirection(self) -> Sequence[float]: ...


@dataclass(frozen=True, eq=False)
class AxialGrid:
    """A 3D grid in space, and how it is looked at as a stack of axial slices without resampling.

    The *array* is [z, y, x] as it lies in a file. The *stack* is the same voxels [k, j, i]: k to Superior, j to
    Posterior, i to Left, each along the array axis nearest to it; an oblique grid stays oblique.

    Args:
        direction: [3, 3] direction cosines; rows L, P, S, one column for each of the axes x, y, z.
        spacing: mm along x, y, z.
        origin: LPS mm of the centre of voxel (0, 0, 0).
        size: voxels along x, y, z.

    Example:
        >>> sagittal = AxialGrid.from_affine([[0, 0, 2, 0], [3, 0, 0, 0], [0, -4, 0, 0], [0, 0, 0, 1]], (5, 6, 7))
        >>> sagittal.shape, sagittal.spacing
        ((6, 5, 7), (4.0, 3.0, 2.0))
        >>> sagittal.to_stack(np.zeros((7, 6, 5))).shape
        (6, 5, 7)
    """

    direction: np.ndarray
    voxel_mm: tuple[float, float, float]
    origin: tuple[float, float, float]
    size: tuple[int, int, int]

    @classmethod
    def of(cls, image: HasGrid) -> AxialGrid:
        """The grid of a SimpleITK image or of a reader that has read a header."""
        direction = np.reshape(image.GetDirection(), (3, 3))
        return cls(direction, _triple(image.GetSpacing()), _triple(image.GetOrigin()), _triple(image.GetSize()))

    @classmethod
    def from_affine(cls, affine: np.ndarray | Sequence, size: Sequence[int]) -> AxialGrid:
        """The grid of an affine [4, 4], voxel index (x, y, z, 1) -> LPS mm, and its voxels along x, y, z."""
        affine = np.asarray(affine, float)
        voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
        origin = _triple(affine[:3, 3].tolist())
        return cls(affine[:3, :3] / voxel_mm, _triple(voxel_mm.tolist()), origin, _triple(int(n) for n in size))

    @cached_property
    def affine(self) -> np.ndarray:
        """[4, 4] voxel index (x, y, z, 1) -> LPS mm."""
        affine = np.eye(4)
        affine[:3, :3] = self.direction * self.voxel_mm
        affine[:3, 3] = self.origin
        return affine

    @cached_property
    def axes(self) -> tuple[int, int, int]:
        """The axes (0 is x) nearest to S, P and L.

        The slice axis is chosen first: on a steeply oblique grid all three axes can be nearest to another.
        """
        k = int(np.abs(self.direction[2]).argmax())
        rest = [axis for axis in range(3) if axis != k]

        def nearness(pair: tuple[int, ...]) -> float:
            return abs(self.direction[1, pair[0]]) + abs(self.direction[0, pair[1]])

        j, i = max(itertools.permutations(rest), key=nearness)
        return k, j, i

    @cached_property
    def signs(self) -> tuple[int, int, int]:
        """-1 for each axis of the stack (k, j, i) that runs against the array's, else 1."""
        return _triple(
            -1 if self.direction[row, axis] < 0 else 1 for row, axis in zip((2, 1, 0), self.axes, strict=True)
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns of the stack."""
        return _triple(self.size[axis] for axis in self.axes)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm along k, j, i of the stack."""
        return _triple(self.voxel_mm[axis] for axis in self.axes)

    def to_stack(self, array: np.ndarray) -> np.ndarray:
        """A view of an array [z, y, x] as the stack [k, j, i]; writing to it writes the array."""
        return array.transpose([2 - axis for axis in self.axes])[self._flips]

    def to_array(self, stack: np.ndarray) -> np.ndarray:
        """A view of a stack [k, j, i] as the array [z, y, x], the inverse of :meth:`to_stack`."""
        return stack[self._flips].transpose(np.argsort([2 - axis for axis in self.axes]))

    @property
    def _flips(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, sign) for sign in self.signs)

    @cached_property
    def stack_to_voxel(self) -> np.ndarray:
        """[4, 4] stack index (i, j, k, 1) -> voxel index (x, y, z, 1)."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for column, (axis, sign) in enumerate(zip(self.axes[::-1], self.signs[::-1], strict=True)):
            matrix[axis, column] = sign
            matrix[axis, 3] = self.size[axis] - 1 if sign < 0 else 0
        return matrix

    @property
    def stack_to_lps(self) -> np.ndarray:
        """[4, 4] stack index (i, j, k, 1) -> LPS mm."""
        return self.affine @ self.stack_to_voxel

    @property
    def stack_to_ras(self) -> np.ndarray:
        """[4, 4] stack index (i, j, k, 1) -> RAS mm."""
        return RAS_TO_LPS @ self.stack_to_lps

    @property
    def corners(self) -> np.ndarray:
        """[4, 8] homogeneous voxel indices of the corner voxels."""
        return np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in self.size))], float).T

    @property
    def shear(self) -> float:
        """The sine of the angle by which two axes miss 90 degrees at most."""
        return float(np.abs(self.direction.T @ self.direction - np.eye(3)).max())

    def apart_from(self, other: AxialGrid) -> float:
        """How far the corner voxels of two grids of one size lie from each other at most, in voxels of this one."""
        return float(np.abs(np.linalg.inv(self.affine) @ other.affine @ self.corners - self.corners)[:3].max())

    def __str__(self) -> str:
        def row(values: Sequence[float]) -> str:
            return " x ".join(f"{value:.6g}" for value in values)

        towards = {}
        for axis, sign, letters in zip(self.axes, self.signs, ("SI", "PA", "LR"), strict=True):
            towards[axis] = letters[sign < 0]
        code = "".join(towards[axis] for axis in range(3))
        return f"{row(self.size)} of {row(self.voxel_mm)} mm, {code}, origin {row(self.origin)}"


def _triple(values: Iterable[Number]) -> tuple[Number, Number, Number]:
    x, y, z = values
    return x, y, z
