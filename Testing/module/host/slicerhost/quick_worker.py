"""A worker that speaks the real protocol and finds the phantom's liver by a threshold: no torch, no model, no waiting.

For tests of what the panel does with an answer. How it gets the model's own is shown with the real worker.
``python quick_worker.py FOLDER``
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.imaging.volume import read_volume
from SAMMixLib.structure import LIVER
from SAMMixLib.worker.protocol import (
    HEARTBEAT_SECONDS,
    Cancel,
    Heartbeat,
    Hello,
    Load,
    Loaded,
    Message,
    Progressed,
    Quit,
    Resegment,
    Resegmented,
    Segment,
    Segmented,
    Stage,
    Suggest,
    Suggested,
    Unload,
    Unloaded,
    decode,
    encode,
)

LOW, HIGH = 60, 160  # HU of the phantom's liver
OPENING = [2, 2, 0]


class QuickWorker:
    def __init__(self, folder: Path):
        self.folder, self.written, self.mask = folder, 0, None
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, daemon=True).start()

    def say(self, message: Message, number: int | None = None) -> None:
        with self._lock:
            sys.stdout.buffer.write(encode(message, number))
            sys.stdout.buffer.flush()

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            self.say(Heartbeat())

    def write(self, image: sitk.Image, name: str) -> str:
        self.written += 1
        path = self.folder / f"{name}-{self.written}.nrrd"
        sitk.WriteImage(image, str(path), useCompression=False)
        return str(path)

    def load(self, number: int, asked: Load) -> Loaded:
        return Loaded("starter", "cpu", "float32", LIVER.to_dict())

    def segment(self, number: int, asked: Segment) -> Segmented:
        self.stack = read_volume(asked.volume).axial()
        array = self.stack.array
        image = sitk.GetImageFromArray(((array > LOW) & (array < HIGH)).astype(np.uint8))
        components = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.BinaryMorphologicalOpening(image, OPENING)))
        self.mask = sitk.GetArrayFromImage(components) == 1
        ks = list(range(len(self.mask))) if asked.slices is None else asked.slices
        for stage in (Stage.CLASSIFY, Stage.SEGMENT):
            for done in range(4):
                self.say(Progressed(stage, done, 4), number)
                time.sleep(0.05)
        self.mask[[k for k in range(len(self.mask)) if k not in ks]] = False
        cam = self.stack.to_grid(self.mask)
        cam = sitk.Cast(sitk.RescaleIntensity(sitk.SmoothingRecursiveGaussian(sitk.Cast(cam, sitk.sitkFloat32), 8.0),
                                              0, 255), sitk.sitkUInt8)  # fmt: skip
        present = self.mask.any(axis=(1, 2))
        return Segmented(
            mask=self.write(self.stack.to_grid(self.mask), "mask"),
            cam=self.write(cam, "cam"),
            slices_total=len(self.mask),
            boxes={k: [self.box(k)] for k in ks if present[k]},
            p_liver=[0.98 if present[k] else 0.02 for k in ks],
            predicted_iou=[0.9 if present[k] else 0.0 for k in ks],
            area_mm2=[self.area(k) for k in ks],
            review=[int(k) for k in np.flatnonzero(present)[:1]],
            volume_ml=0.0,
            slice_range=None,
            model="starter",
            device="cpu",
            seconds={"total": 0.4},
            warnings=["the quick worker knows no anatomy"],
        )

    def resegment(self, number: int, asked: Resegment) -> Resegmented:
        ks = [each.k for each in asked.slices]
        for each in asked.slices:
            k, boxes = each.k, each.boxes
            cut = np.zeros_like(self.mask[k])
            for i0, j0, i1, j1 in [self.box(k)] if boxes is None else boxes:
                cut[j0 : j1 + 1, i0 : i1 + 1] = True
            array = self.stack.array[k]
            self.mask[k] = cut & (array > LOW) & (array < HIGH)
        return Resegmented(
            mask=self.write(sitk.GetImageFromArray(self.mask[ks].astype(np.uint8)), "slices"),
            slices=ks,
            boxes={each.k: [self.box(each.k)] if each.boxes is None else each.boxes for each in asked.slices},
            predicted_iou=[0.8] * len(ks),
            area_mm2=[self.area(k) for k in ks],
        )

    def suggest(self, number: int, asked: Suggest) -> Suggested:
        left = [k for k in range(len(self.mask)) if k not in asked.labelled][: asked.count]
        return Suggested(left, ["not labelled yet"] * len(left))

    def unload(self, number: int, asked: Unload) -> Unloaded:
        return Unloaded()

    def box(self, k: int) -> tuple[int, int, int, int]:
        rows, columns = np.flatnonzero(self.mask[k].any(axis=1)), np.flatnonzero(self.mask[k].any(axis=0))
        if not rows.size:
            return (0, 0, self.mask.shape[2] - 1, self.mask.shape[1] - 1)
        return (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))

    def area(self, k: int) -> float:
        return float(self.mask[k].sum() * self.stack.spacing[1] * self.stack.spacing[2])


def serve(folder: Path) -> None:
    worker = QuickWorker(folder)
    worker.say(Hello(os.getpid(), {}, [{"name": "cpu", "text": "CPU, 2 threads"}]))
    for line in sys.stdin.buffer:
        number, asked = decode(line)
        if isinstance(asked, Quit):
            return
        if not isinstance(asked, Cancel):
            worker.say(getattr(worker, type(asked).__name__.lower())(number, asked), number)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
