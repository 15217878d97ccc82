"""What another model finds in a scan, as a segmentation of its own beside the user's."""

from __future__ import annotations

import numpy as np
import slicer

from SAMMixLib.imaging.overlap import dice
from SAMMixLib.module.scene.case import Case
from SAMMixLib.module.scene.choice import MODEL
from SAMMixLib.module.scene.geometry import toStack
from SAMMixLib.module.scene.segments import bounds, createSegmentation, readSegment
from SAMMixLib.module.texts import slices as slices_text

COLOR = (1.0, 0.85, 0.1)
WORST = 3  # slices that are named


def comparisonCase(volumeNode, model: str) -> Case:
    """A case whose segmentation takes the result of `model` on this volume; the same at every call."""
    role = f"{model} of {volumeNode.GetID()}"
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    node = next((each for each in nodes if each.GetAttribute(MODEL) == role), None)
    if node is None:
        node = createSegmentation(volumeNode)
        node.SetName(f"{volumeNode.GetName()} by {model}")
        node.SetAttribute(MODEL, role)
        node.GetDisplayNode().SetOpacity2DFill(0)
    return Case(volumeNode, node)


def similarity(case: Case, other: Case) -> tuple[float, str]:
    """Dice between the segments of two cases of one volume, and the slices in which they differ most.

    Colours the other one's segment, so that both outlines can be told apart.
    """
    segmentation = other.segmentationNode.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        segmentation.GetSegment(segmentId).SetColor(COLOR)
    volume, structure = case.volumeNode, other.structure
    one, two = (toStack(readSegment(each.segmentationNode, volume, structure), volume) for each in (case, other))
    sides = zip(bounds(one), bounds(two), strict=True)
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in sides)  # the rest holds neither
    one, two = one[box] > 0, two[box] > 0
    off = np.count_nonzero(one != two, axis=(1, 2))
    worst = sorted(int(k) + box[0].start for k in np.argsort(-off, kind="stable")[:WORST] if off[k])
    return 1.0 if not (one.any() or two.any()) else float(dice(one, two)), slices_text(worst) if worst else "no slice"
