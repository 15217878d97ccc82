"""One ROI node that shows, and lets the user drag, the prompt box of the slice that is looked at.

Boxes stay data: inclusive pixel bounds (i0, j0, i1, j1) in slice k of the axial stack, at full resolution. The ROI has
the axes of the stack, so that a box is exact on oblique and left-handed volumes under any parent transform.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import slicer

from SAMMixLib.module.scene.geometry import nodeToNode, stackShape, stackToRas
from SAMMixLib.module.scene.hygiene import adopt, create, helper
from SAMMixLib.module.scene.navigate import RED
from SAMMixLib.module.scene.observe import Watch

Box = tuple[int, int, int, int]
ROLE = "box"
COLOR = (1.0, 0.85, 0.0)


def boxNode(volumeNode):
    """The volume's one ROI node, made if it is not there: hidden, seen in the red slice view only, without handles."""
    node = helper(volumeNode, ROLE)
    if node is None:
        node = create("vtkMRMLMarkupsROINode", f"{volumeNode.GetName()} box")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.RemoveAllViewNodeIDs()
        display.AddViewNodeID(RED)
        display.SetFillVisibility(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetRotationHandleVisibility(False)
        for paint in (display.SetColor, display.SetSelectedColor, display.SetActiveColor):
            paint(*COLOR)
        display.SetGlyphScale(0.0)  # no dot in the middle of the liver; the handles have a size of their own
        display.SetVisibility(False)
        adopt(node, volumeNode, ROLE)
        setEditable(node, False)
    return node


def setEditable(roiNode, on: bool) -> None:
    """Whether the user can drag the box."""
    roiNode.SetLocked(not on)
    display = roiNode.GetDisplayNode()
    display.SetHandlesInteractive(on)
    display.SetScaleHandleVisibility(on)
    display.SetTranslationHandleVisibility(on)


def showBox(roiNode, volumeNode, k: int | None, box: Box | None) -> None:
    """Put the ROI around a box, one slice thick, or hide it where the slice has none, or no slice is shown."""
    roiNode.GetDisplayNode().SetVisibility(box is not None and k is not None)
    if box is None or k is None:
        return
    i0, j0, i1, j1 = box
    low, high = np.array([i0, j0, k]) - 0.5, np.array([i1, j1, k]) + 0.5
    matrix = stackToRas(volumeNode)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    objectToNode = np.eye(4)
    objectToNode[:3, :3] = matrix[:3, :3] / spacing  # right-handed on any grid: the stack is turned towards L, P and S
    objectToNode[:3, 3] = (matrix @ [*(low + high) / 2, 1])[:3]
    modifying = roiNode.StartModify()
    roiNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    roiNode.SetSize(*(high - low) * spacing)
    roiNode.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(objectToNode))
    roiNode.EndModify(modifying)


def readBox(roiNode, volumeNode) -> tuple[int, Box]:
    """The slice k that the ROI's centre lies in, and the pixels whose centres it covers: at least one, in the volume.

    Raises:
        SAMMixError: a non-linear transform was put between the ROI and the volume.
    """
    toNode = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToNodeMatrix())
    toStack = np.linalg.inv(stackToRas(volumeNode)) @ nodeToNode(roiNode, volumeNode) @ toNode
    half = np.array(roiNode.GetSize()) / 2
    corners = np.array([[*sign * half, 1] for sign in np.array(list(itertools.product((-1, 1), repeat=3)))])
    inStack = (corners @ toStack.T)[:, :3]
    slices, rows, columns = stackShape(volumeNode)
    last = np.array([columns, rows, slices]) - 1
    low = np.clip(np.rint(inStack.min(axis=0) + 0.5), 0, last).astype(int)
    high = np.clip(np.rint(inStack.max(axis=0) - 0.5), low, last).astype(int)
    k = int(np.clip(np.rint(toStack[2, 3]), 0, last[2]))
    return k, (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def watchBox(roiNode, volumeNode, callback: Callable[[int, Box], None]) -> Watch:
    """Call ``callback(k, box)`` whenever the user let go of the box after dragging it, and never otherwise."""
    released = (slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent,)
    return Watch(roiNode, released, lambda roi: callback(*readBox(roi, volumeNode)))
