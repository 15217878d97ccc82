"""The camera of the 3D views."""

from __future__ import annotations

import slicer

ANTERIOR = 3  # the views' number of this axis


def showFromFront() -> None:
    """Turn the 3D views to what can be seen in them, from the front, as large as it fits.

    A view's own reset takes its box into account, which may be of all scans, and looks along the axis that the camera
    is nearest to as seen from the origin: along the body, for a scan that lies far up or down.
    """
    manager = slicer.app.layoutManager()
    for n in range(manager.threeDViewCount):
        view = manager.threeDWidget(n).threeDView()
        node = view.mrmlViewNode()
        box, labels = node.GetBoxVisible(), node.GetAxisLabelsVisible()
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
        view.resetFocalPoint()
        view.rotateToViewAxis(ANTERIOR)
        view.resetCamera(False, True, True)  # this rotation stays; centre and distance are new
        node.SetBoxVisible(box)
        node.SetAxisLabelsVisible(labels)
