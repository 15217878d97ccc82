"""Which slice to correct next: the one whose mask teaches most about all slices that the model is in doubt about.

A slice's doubt adds four signs, each 0 to 1: the entropy of the classifier's answer; how far SAM's own estimate of its
IoU lies below 1; how little the mask of the CAM's box overlaps the mask of that mask's own box; and the same for a box
grown by a tenth. Two slices are alike, 0 to 1, as they lie close along z and in the space of SAM's embeddings. Slices
are taken one after another, each for the most doubt on all slices that are more like it than like one labelled or taken
before: weighted facility location (Wei, Iyer and Bilmes, "Submodularity in data subset selection and active learning",
2015). The most doubtful slice alone is often a tip of the organ, and like no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from SAMMixLib.inference.scan import Scan
from SAMMixLib.inference.thin_slices import spaced, step_of
from SAMMixLib.method.prompts import bounding_boxes
from SAMMixLib.networks.sam.decoding import EMBEDDING_CHANNELS
from SAMMixLib.progress import Progress, silent

SPACING_MM = 4.0  # between two slices that are looked at
FAR_MM = 10_000.0  # between two scans
ALIKE_MM = 25.0  # along z, at which likeness falls to 1/e
GROWN = 0.1  # of a box's extent
SIGNS = (  # in the words of who corrects
    "the model is unsure whether to draw anything",
    "the model itself has little trust in its outline",
    "the outline changes when it is drawn again",
    "the outline changes with a slightly larger box",
)


@dataclass
class Candidates:
    """What is known of n candidate slices, of one scan or of several."""

    slices: np.ndarray  # int [n], k
    z: np.ndarray  # [n], mm
    signs: np.ndarray  # [n, 4] as SIGNS, 0 to 1
    features: np.ndarray  # [n, 256], mean embeddings

    @property
    def uncertainty(self) -> np.ndarray:
        return self.signs.sum(axis=1)


def suggest(scan: Scan, labelled: Sequence[int], count: int, progress: Progress = silent) -> list[tuple[int, str]]:
    """Up to `count` slices k of a scan that was segmented, the one to correct first first, each with the reason.

    Args:
        labelled: slices that need no more correction.
    """
    found = candidates(scan, labelled, progress)
    known = np.isin(found.slices, labelled)
    return [(int(found.slices[n]), reason(found, n)) for n in facility_location(found, known, count)]


def reason(found: Candidates, n: int) -> str:
    """The strongest sign of doubt about one candidate and those that it stands for."""
    return f"{SIGNS[int((similarity(found)[n] @ found.signs).argmax())]}, here and on slices like it"


@torch.inference_mode()
def candidates(scan: Scan, also: Sequence[int] = (), progress: Progress = silent) -> Candidates:
    """Look again at the slices of a segmented scan that got a box, no closer than 4 mm, and at the slices `also`."""
    step = step_of(SPACING_MM, scan.stack.spacing[0])
    prompted = [k for k in range(len(scan.slices)) if len(scan.edges[k])]
    ks = sorted({*spaced(prompted, step), *also})
    signs = np.zeros((len(ks), len(SIGNS)))
    model, batch = scan.segmenter.model, scan.segmenter.runtime.batch_size
    parts = [np.zeros((0, EMBEDDING_CHANNELS))]  # a scan in which nothing was found has no candidate
    for start in range(0, len(ks), batch):
        progress("segment slices", start, len(ks))
        part = ks[start : start + batch]
        embeddings = scan.embed(part)
        parts.append(embeddings.float().mean(dim=(2, 3)).cpu().numpy())
        rows = [n for n, k in enumerate(part) if len(scan.edges[k])]
        if not rows:
            continue
        embeddings, cams = embeddings[rows], scan.cams[[part[n] for n in rows]].float().to(embeddings.device)
        boxes = [scan.edges[part[n]].to(embeddings.device) for n in rows]
        logits, iou = model.decode(embeddings, boxes, cams)
        masks = logits > 0
        own = bounding_boxes(masks, "one", model.config.padding)
        own = [new if len(new) else old for new, old in zip(own, boxes, strict=True)]
        others = [model.decode(embeddings, each, cams)[0] > 0 for each in (own, [grown(box) for box in boxes])]
        signs[[start + n for n in rows], 1:] = np.stack(
            [(1 - iou.float()).clamp(0, 1).cpu(), *(1 - overlap(masks, other).cpu() for other in others)], axis=1
        )
    p = np.clip(np.nan_to_num(scan.p_liver[ks], nan=0.5), 1e-6, 1 - 1e-6)
    signs[:, 0] = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return Candidates(np.array(ks, int), np.array(ks, float) * scan.stack.spacing[0], signs, np.concatenate(parts))


def joined(scans: Sequence[Candidates]) -> Candidates:
    """The candidates of several scans as one: along z, scans lie far apart."""
    z = [found.z + FAR_MM * n for n, found in enumerate(scans)]
    parts = (np.concatenate([getattr(found, name) for found in scans]) for name in ("slices", "signs", "features"))
    slices, signs, features = parts
    return Candidates(slices, np.concatenate(z), signs, features)


def facility_location(found: Candidates, known: np.ndarray | Sequence[bool], count: int) -> list[int]:
    """Positions of up to `count` candidates, the best first; those that are `known` (bool [n]) count as labelled."""
    free = ~np.asarray(known, bool)
    alike = similarity(found)
    learned = alike[~free].max(axis=0, initial=0.0)
    taken: list[int] = []
    while free.any() and len(taken) < count:
        gain = (np.maximum(alike - learned, 0.0) * found.uncertainty).sum(axis=1)
        taken.append(int(np.where(free, gain, -1.0).argmax()))
        free[taken[-1]] = False
        learned = np.maximum(learned, alike[taken[-1]])
    return taken


def similarity(found: Candidates) -> np.ndarray:
    """Of all candidates [n, n], 1 on the diagonal; embeddings are measured by their median distance."""
    z = np.abs(found.z[:, None] - found.z) / ALIKE_MM
    space = np.linalg.norm(found.features[:, None] - found.features[None], axis=2)
    return np.exp(-z - space / (np.median(space[space > 0]) if (space > 0).any() else 1.0))


def grown(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes [b, 4] a tenth longer and wider, half of it on each side."""
    extent = (boxes[:, 2:] - boxes[:, :2]) * GROWN / 2
    return torch.cat([boxes[:, :2] - extent, boxes[:, 2:] + extent], dim=1)


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Dice of two masks on each of n slices; 1 where both are empty."""
    both, total = (a & b).sum(dim=(1, 2)), a.sum(dim=(1, 2)) + b.sum(dim=(1, 2))
    return torch.where(total > 0, 2 * both / total.clamp_min(1), torch.ones_like(total, dtype=torch.float32))
