"""A stub for the model of a cohort, and small scans for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

HASH = "5" * 64


def stub_source(calls: Path, sha256: str = HASH):
    """A model source whose model does what the scan's name says; classes of a function travel by value."""

    class Model:
        name = "stub"
        structure = None

        def segment(self, volume, progress):
            from SAMMixLib.inference.results import SegmentationResult

            name = volume.path.name
            with (calls / name).open("a") as file:
                file.write("x")
            if "kill" in name:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in name:
                time.sleep(600)
            if "surprise" in name:
                raise ValueError("nobody thought of this")
            stack = volume.axial()
            mask = (stack.array > 40) & (stack.array < 160)
            n = len(mask)
            return SegmentationResult(
                mask=mask, slices=np.zeros((n, 8, 8), np.uint8), slice_masks=np.zeros((n, 8, 8), bool),
                cams=np.zeros((n, 8, 8), np.float16), boxes=[[]] * n,
                p_liver=np.ones(n, np.float32), classified=np.ones(n, bool),
                prompted=np.ones(n, bool), threshold=0.7, keep_threshold=0.3,
                predicted_iou=np.full(n, 0.95, np.float32), spacing=stack.spacing,
                volume_ml=float(mask.sum() * np.prod(stack.spacing) / 1000),
                area_mm2=mask.sum((1, 2)).astype(np.float32), mean_hu=100.0, slice_range=(0, n - 1),
                warnings=volume.warnings,
            )  # fmt: skip

    class Source:
        def load(self, worker):
            from SAMMixLib.structure import LIVER

            with (calls / "loads").open("a") as file:
                file.write("x")
            model = Model()
            model.structure = LIVER
            return model

    return Source()


def write_scan(path: Path, seed: int = 0) -> Path:
    """A small CT: air, a body, and a block with the HU of a liver."""
    array = np.full((12, 24, 24), -1000, np.int16)
    array[:, 3:21, 3:21] = 20
    array[2:10, 6 : 14 + seed % 4, 5:15] = 100
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 5.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path
