"""Helper nodes: not saved, hidden from selectors, in one subject hierarchy folder, found again, removed together."""

from __future__ import annotations

import slicer

from SAMMixLib.module.scene.foreground import giveBack

FOLDER = "SAMMix"
ROLE = "SAMMix.role"  # node attribute: what a helper is for
VOLUME = "SAMMix.volume"  # node reference: the volume it belongs to


def create(className: str, name: str):
    """A new node in the scene that no selector has ever offered: they look at a node when it comes, and not again."""
    node = slicer.mrmlScene.CreateNodeByClass(className)
    node.UnRegister(None)
    node.SetName(name)
    node.SetHideFromEditors(True)
    return slicer.mrmlScene.AddNode(node)


def adopt(node, volumeNode, role: str) -> None:
    """Make a node, and its display nodes, a helper of a volume; there may be one for each role."""
    node.SetAttribute(ROLE, role)
    node.SetNodeReferenceID(VOLUME, volumeNode.GetID())
    for each in (node, *_displays(node)):
        each.SetSaveWithScene(False)
        each.SetHideFromEditors(True)
    place(node, volumeNode)


def place(node, volumeNode) -> None:
    """Move a node into the volume's folder."""
    hierarchy = _hierarchy()
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    hierarchy.SetItemParent(item, folder(volumeNode))


def folder(volumeNode) -> int:
    """The subject hierarchy item of the folder SAMMix beside the volume, in its study where it has one."""
    hierarchy = _hierarchy()
    item = hierarchy.GetItemByDataNode(volumeNode)
    parent = hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()
    return hierarchy.GetItemChildWithName(parent, FOLDER) or hierarchy.CreateFolderItem(parent, FOLDER)


def isHelper(node) -> bool:
    """Whether the node is one of ours."""
    return node.GetAttribute(ROLE) is not None


def helper(volumeNode, role: str):
    """The volume's helper node of this role, or None."""
    return next((node for node in helpers(volumeNode) if node.GetAttribute(ROLE) == role), None)


def helpers(volumeNode=None) -> list:
    """The helper nodes of a volume, or of all volumes and of those that are gone."""
    scene = slicer.mrmlScene
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return [n for n in nodes if isHelper(n) and volumeNode in (None, n.GetNodeReference(VOLUME))]


def removeHelpers(volumeNode=None) -> None:
    """Remove the helper nodes of a volume (of all volumes by default), and every folder that this leaves empty.

    A node goes before its display: the subject hierarchy reads its colour there for as long as it lists the node. What
    is drawn besides, such as a colour legend, goes first of all: it looks at node and display.
    """
    hierarchy = _hierarchy()
    for node in helpers(volumeNode):
        giveBack(node)
        parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
        first, *others = _displays(node) or [None]
        for each in (*others, node, first):
            if each is not None and each.GetScene() is not None:  # Slicer takes a display along with its node
                slicer.mrmlScene.RemoveNode(each)
        if hierarchy.GetItemName(parent) == FOLDER and not hierarchy.GetNumberOfItemChildren(parent):
            hierarchy.RemoveItem(parent)


def _displays(node) -> list:
    return [node.GetNthDisplayNode(n) for n in range(getattr(node, "GetNumberOfDisplayNodes", int)())]


def _hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
