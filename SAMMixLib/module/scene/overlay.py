"""The class activation map as a heat map over the slice views, and the user's own foreground again after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer

from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.grid import RAS_TO_LPS, AxialGrid
from SAMMixLib.module.scene.foreground import borrow, giveBack
from SAMMixLib.module.scene.hygiene import adopt, create, helper
from SAMMixLib.module.scene.navigate import RED

ROLE = "cam"
COLORS = "vtkMRMLColorTableNodeFileInferno.txt"


def loadCam(path: str | Path, volumeNode, slices: list[int] | None = None):
    """The volume's CAM node from the worker's file (uint8, 0 to 255 for 0 to 1, on a grid of its own); not shown yet.

    Args:
        slices: that are taken from the file; what is known of the others stays. All by default.

    Raises:
        SAMMixError: the file cannot be read.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise SAMMixError(f"{path}: the heat map cannot be read; segment the volume again") from None
    matrix = slicer.util.vtkMatrixFromArray(RAS_TO_LPS @ AxialGrid.of(image).affine)
    cam = sitk.GetArrayViewFromImage(image).astype(np.float32) / 255
    node = helper(volumeNode, ROLE)
    if node is None:
        node = create("vtkMRMLScalarVolumeNode", f"{volumeNode.GetName()} CAM")
        node.CreateDefaultDisplayNodes()
        _dress(node)
        adopt(node, volumeNode, ROLE)
    elif slices is not None and (known := slicer.util.arrayFromVolume(node)).shape == cam.shape:
        some, cam = cam, known.copy()
        cam[slices] = some[slices]
    node.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(node, cam)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    return node


def showCam(camNode, opacity: float) -> None:
    """Lay the CAM over all slice views."""
    borrow(camNode, opacity)
    _legend(camNode).SetVisibility(True)


def hideCam(camNode) -> None:
    """Give the slice views that still show the CAM the foreground that they had before."""
    giveBack(camNode)
    _legend(camNode).SetVisibility(False)


def setThreshold(camNode, threshold: float) -> None:
    """Draw nothing where the CAM is below ``threshold`` (0 to 1)."""
    camNode.GetDisplayNode().SetThreshold(threshold, 1.0)
    camNode.GetDisplayNode().SetApplyThreshold(True)


def _dress(node) -> None:
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(COLORS)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    setThreshold(node, 0.3)
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText("Heat map")
    legend.SetLabelFormat("%.1f")
    legend.SetNumberOfLabels(6)
    legend.SetSize(0.09, 0.35)
    legend.GetTitleTextProperty().SetFontSize(16)
    legend.GetLabelTextProperty().SetFontSize(14)
    legend.AddViewNodeID(RED)  # one legend is enough
    legend.SetVisibility(False)


def _legend(camNode):
    return slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(camNode)
