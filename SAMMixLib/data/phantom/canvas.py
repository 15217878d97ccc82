"""What is drawn on: tissues, HU and labels of every voxel, and coordinates in mm."""

from __future__ import annotations

import numpy as np

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
