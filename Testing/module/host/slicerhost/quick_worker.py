"""A worker that speaks the real protocol and finds the phantom's liver by a threshold: no torch, no model, no waiting.

For tests of what the panel does with an answer. How it gets the model's own is shown with the real worker.
``python quick_worker.py FOLDER``
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

HEARTBEAT_SECONDS = 1.0
LOW, HIGH = 60, 160  # HU of the phantom's liver
OPENING = [2, 2, 0]


class QuickWorker:
    def __init__(self, folder: Path):
        self.folder, self.written, self.mask = folder, 0, None
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, daemon=True).start()

    def say(self, **message) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            self.say(type="heartbeat")

    def write(self, image: sitk.Image, name: str) -> str:
        self.written += 1
        path = self.folder / f"{name}-{self.written}.nrrd"
        sitk.WriteImage(image, str(path), useCompression=False)
        return str(path)

    def load(self, **_) -> dict:
        from SAMMixLib.structure import LIVER

        return {"name": "starter", "device": "cpu", "device_text": "CPU", "dtype": "float32",
                "structure": LIVER.to_dict()}  # fmt: skip

    def segment(self, number: int, volume: str, slices: list[int] | None = None) -> dict:
        from SAMMixLib.imaging.volume import read_volume

        self.stack = read_volume(volume).axial()
        array = self.stack.array
        image = sitk.GetImageFromArray(((array > LOW) & (array < HIGH)).astype(np.uint8))
        components = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.BinaryMorphologicalOpening(image, OPENING)))
        self.mask = sitk.GetArrayFromImage(components) == 1
        ks = list(range(len(self.mask))) if slices is None else slices
        for stage in ("classify slices", "segment slices"):
            for done in range(4):
                self.say(type="progress", id=number, stage=stage, done=done, total=4)
                time.sleep(0.05)
        self.mask[[k for k in range(len(self.mask)) if k not in ks]] = False
        cam = self.stack.to_grid(self.mask)
        cam = sitk.Cast(sitk.RescaleIntensity(sitk.SmoothingRecursiveGaussian(sitk.Cast(cam, sitk.sitkFloat32), 8.0),
                                              0, 255), sitk.sitkUInt8)  # fmt: skip
        present = self.mask.any(axis=(1, 2))
        return {
            "mask": self.write(self.stack.to_grid(self.mask), "mask"), "cam": self.write(cam, "cam"),
            "boxes": {k: [self.box(k)] for k in ks if present[k]},
            "p_liver": [0.98 if present[k] else 0.02 for k in ks],
            "predicted_iou": [0.9 if present[k] else 0.0 for k in ks], "area_mm2": [self.area(k) for k in ks],
            "volume_ml": 0.0, "slice_range": None, "review": [int(k) for k in np.flatnonzero(present)[:1]],
            "slices_total": len(self.mask), "model": "starter", "device": "cpu", "seconds": {"total": 0.4},
            "warnings": ["the quick worker knows no anatomy"],
        }  # fmt: skip

    def resegment(self, number: int, slices: list[dict]) -> dict:
        ks = [each["k"] for each in slices]
        for each in slices:
            k, boxes = each["k"], each["boxes"]
            cut = np.zeros_like(self.mask[k])
            for i0, j0, i1, j1 in [self.box(k)] if boxes is None else boxes:
                cut[j0 : j1 + 1, i0 : i1 + 1] = True
            array = self.stack.array[k]
            self.mask[k] = cut & (array > LOW) & (array < HIGH)
        return {
            "mask": self.write(sitk.GetImageFromArray(self.mask[ks].astype(np.uint8)), "slices"),
            "slices": ks,
            "boxes": {each["k"]: [self.box(each["k"])] if each["boxes"] is None else each["boxes"] for each in slices},
            "predicted_iou": [0.8] * len(ks), "area_mm2": [self.area(k) for k in ks],
        }  # fmt: skip

    def suggest(self, number: int, labelled: list[int], count: int) -> dict:
        left = [k for k in range(len(self.mask)) if k not in labelled][:count]
        return {"slices": left, "reasons": ["not labelled yet"] * len(left)}

    def unload(self, number: int) -> dict:
        return {}

    def box(self, k: int) -> list[int]:
        rows, columns = np.flatnonzero(self.mask[k].any(axis=1)), np.flatnonzero(self.mask[k].any(axis=0))
        if not rows.size:
            return [0, 0, self.mask.shape[2] - 1, self.mask.shape[1] - 1]
        return [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])]

    def area(self, k: int) -> float:
        return float(self.mask[k].sum() * self.stack.spacing[1] * self.stack.spacing[2])


def serve(folder: Path) -> None:
    worker = QuickWorker(folder)
    worker.say(type="hello", pid=os.getpid(), versions={}, devices=[{"name": "cpu", "text": "CPU, 2 threads"}])
    for line in sys.stdin:
        message = json.loads(line)
        kind, number = message.pop("type"), message.pop("id")
        if kind == "quit":
            return
        if kind == "load":
            worker.say(type="result", id=number, **worker.load())
        elif kind != "cancel":
            worker.say(type="result", id=number, **getattr(worker, kind)(number, **message))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
