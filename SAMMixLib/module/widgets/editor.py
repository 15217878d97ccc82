"""The panel's Segment Editor: kept on the case's segmentation, and out of other modules' way."""

from __future__ import annotations

from SAMMixLib.module.scene.singletons import segmentEditorNode


class Editor:
    """Wires a ``qMRMLSegmentEditorWidget``."""

    def __init__(self, widget):
        self._widget = widget

    def enter(self) -> None:
        self._widget.installKeyboardShortcuts()

    def exit(self) -> None:
        self._widget.setActiveEffect(None)
        self._widget.uninstallKeyboardShortcuts()
        self._widget.removeViewObservations()

    def takeScene(self) -> None:
        """Use the parameters that the scene has."""
        self._widget.setMRMLSegmentEditorNode(segmentEditorNode())

    def point(self, volume, segmentation) -> None:
        """Edit a segmentation of a volume; None for nothing.

        While a scene is read the editor's own selector does not know its nodes: it falls back to nothing, or takes a
        segmentation for known of which its undo was never told. So it lets go of that first.
        """
        if self._widget.segmentationNode() is not segmentation:
            self._widget.setSegmentationNode(None)
        self._widget.setSegmentationNode(segmentation)
        if segmentation:  # without one there is nothing to edit on the volume
            self._widget.setSourceVolumeNode(volume)

    def saveState(self, segmentation) -> None:
        """Before a write: what its undo goes back to. It knows the segmentation that it edits, and no other."""
        if segmentation is not None and self._widget.segmentationNode() is segmentation:
            self._widget.saveStateForUndo()
