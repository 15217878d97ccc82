"""The module's own nodes of which a scene has one, and the volume it begins with."""

from __future__ import annotations

import slicer

from SAMMixLib.module.scene.hygiene import isHelper

TAG = "SAMMix"


def segmentEditorNode():
    """The parameters of the embedded Segment Editor, apart from those of the Segment Editor module."""
    return _singleton("vtkMRMLSegmentEditorNode")


def plotViewNode(chartNode):
    """The view of the panel's chart, showing `chartNode` or nothing."""
    node = _singleton("vtkMRMLPlotViewNode", owner=segmentEditorNode())
    node.SetSaveWithScene(False)
    node.SetHideFromEditors(True)
    node.SetPlotChartNodeID(chartNode.GetID() if chartNode else None)
    return node


def firstVolume():
    """The volume that the user most likely means: what the red view shows, else the first; None without one."""
    candidates = [shownVolume(), *slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    return next((node for node in candidates if node and isVolume(node)), None)


def shownVolume():
    """What the red view shows; None if that is nothing."""
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    return slicer.mrmlScene.GetNodeByID(red.GetBackgroundVolumeID() or "") if red else None


def isVolume(node) -> bool:
    """Whether a node may be the input: a scalar volume that is not one of ours."""
    return node.GetClassName() == "vtkMRMLScalarVolumeNode" and not isHelper(node)


def _singleton(className: str, owner=None):
    node = slicer.mrmlScene.GetSingletonNode(TAG, className)
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass(className)
        node.UnRegister(None)
        node.SetSingletonTag(TAG)
        if owner is not None:  # a view without one is taken up by the main window's layout, and shown there too
            node.SetAndObserveParentLayoutNodeID(owner.GetID())
        node = slicer.mrmlScene.AddNode(node)
    return node
