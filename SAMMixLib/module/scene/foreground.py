"""The foreground of the slice views, borrowed for a node of ours and given back as the user had it."""

from __future__ import annotations

import json

import slicer

BEFORE = "SAMMix.foreground."  # attribute of the borrower: what a slice view showed before, by the view's name


def borrow(node, opacity: float) -> None:
    """Show a volume node in the foreground of all slice views; one that borrowed them before gives them back first."""
    for view in _views():
        if (other := _shown(view)) is not node:
            if other is not None and other.GetAttribute(BEFORE + view.GetLayoutName()):
                giveBack(other)
            before = [view.GetForegroundVolumeID(), view.GetForegroundOpacity()]
            node.SetAttribute(BEFORE + view.GetLayoutName(), json.dumps(before))
        view.SetForegroundVolumeID(node.GetID())
        view.SetForegroundOpacity(opacity)


def giveBack(node) -> None:
    """Give each slice view that still shows the node the foreground and opacity that it had before."""
    for view in _views():
        if _shown(view) is node:
            before = node.GetAttribute(BEFORE + view.GetLayoutName())
            volume, opacity = json.loads(before) if before else (None, 0.0)
            view.SetForegroundVolumeID(volume if volume and slicer.mrmlScene.GetNodeByID(volume) else None)
            view.SetForegroundOpacity(opacity)


def _shown(view):
    return slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID() or "")


def _views() -> list:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
