"""One CT with its liver segmentation: the scene as a session sees it.

It is the ``Case`` of ``SAMMixLib.module.protocols``. Work that would make the windows stutter comes in steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from SAMMixLib.errors import SAMMixError
from SAMMixLib.module import texts
from SAMMixLib.module.scene.choice import foreignOwner
from SAMMixLib.module.scene.drawing import CaseDrawing, Overlays
from SAMMixLib.module.scene.edits import editedSlices, rememberResult, resultTag, stamp, version
from SAMMixLib.module.scene.geometry import ijkToRas, stackToRas, toStack
from SAMMixLib.module.scene.navigate import currentSlice, jumpToSlice, nextToReview
from SAMMixLib.module.scene.observe import Watch
from SAMMixLib.module.scene.segments import (
    LABELMAP,
    Brush,
    bounds,
    createSegmentation,
    findSegment,
    readSegment,
    writeSegment,
)
from SAMMixLib.module.scene.volume import checkVolume, exportVolume, importMask, importSlices
from SAMMixLib.structure import LIVER, Structure

if TYPE_CHECKING:
    from SAMMixLib.module.case_state import Findings


class Case:
    """A volume node with the segmentation node that takes the result; None for one that is made with the first result.

    Args:
        overlays: what to draw; nothing by default.
        saveStateForUndo: called with the segmentation node once before each write, for the Segment Editor's undo.
        editorNode: the Segment Editor's parameters, whose masking limits what is written.

    Attributes:
        structure: which segment is meant; the session sets what its model segments.
    """

    def __init__(
        self,
        volumeNode,
        segmentationNode: Any = None,
        overlays: Overlays | None = None,
        saveStateForUndo: Callable[[Any], None] = lambda segmentationNode: None,
        editorNode: Any = None,
    ):
        self.volumeNode, self.editorNode = volumeNode, editorNode
        self.segmentationNode: Any = segmentationNode
        self.structure = LIVER
        self._drawing = CaseDrawing(volumeNode, overlays) if overlays is not None else None
        self._saveStateForUndo = saveStateForUndo
        self._checked: tuple = ()
        self._areas: tuple = ()  # of which voxels, and mm2 by slice
        self._edited: tuple = ()  # of which voxels and which result, and the slices
        self._corrections: dict[int, bytes] = {}  # packed slices as corrections left them

    # What a session asks

    @property
    def name(self) -> str:
        """Of the scan, as the user knows it."""
        return self.volumeNode.GetName()

    @property
    def scan(self) -> str:
        """Tells scans apart, and changes with the voxels."""
        image = self.volumeNode.GetImageData()
        scalars = image and image.GetPointData().GetScalars()
        return f"{self.volumeNode.GetID()} {scalars.GetMTime() if scalars else 0}"

    @property
    def key(self) -> str:
        """The scan and the segmentation: what was found belongs to the pair."""
        return f"{self.scan} {self.segmentationNode.GetID() if self._inScene() else ''}"

    @property
    def present(self) -> bool:
        """Whether the volume is in the scene still."""
        return self.volumeNode.GetScene() is not None

    def check(self) -> tuple[bool, str, list[str]]:
        """As ``checkVolume``, which looks at every voxel: done again only when voxels or grid have changed."""
        seen = (self.scan, self.volumeNode.GetName(), ijkToRas(self.volumeNode).tobytes())
        if self._checked[:1] != (seen,):
            self._checked = (seen, checkVolume(self.volumeNode))
        return self._checked[1]

    def size(self) -> tuple[int, float]:
        """Slices of the axial stack, and its length in mm."""
        slices = toStack(slicer.util.arrayFromVolume(self.volumeNode), self.volumeNode).shape[0]
        return slices, slices * float(np.linalg.norm(stackToRas(self.volumeNode)[:3, 2]))

    def current_slice(self) -> int | None:
        return currentSlice(self.volumeNode)

    def has_segment(self, structure: Structure | None = None) -> bool:
        """Whether there is a segment of the structure; of the case's own by default."""
        return self._inScene() and findSegment(self.segmentationNode, structure or self.structure) is not None

    def foreign_owner(self) -> str:
        """The name of another scan that its segmentation holds segments of; nothing where there is none."""
        return foreignOwner(self.segmentationNode, self.volumeNode) if self._inScene() else ""

    def renew(self) -> None:
        """Leave its segmentation as it is: the next result makes a new one."""
        self.segmentationNode = None

    def edited_slices(self) -> list[int]:
        """Slices that are not as the last result left them, corrections by box included; found anew only when the
        voxels or the result have changed.
        """
        if not self._inScene():
            return []
        seen = (self._voxels(), resultTag(self.segmentationNode, self.structure))
        if self._edited[:1] != (seen,):
            self._edited = (seen, editedSlices(self.segmentationNode, self.volumeNode, self.structure))
        return self._edited[1]

    def corrected_slices(self) -> list[int]:
        """The edited slices of a segment that a result of ours made; of one that only the user drew there are none."""
        made = self._inScene() and resultTag(self.segmentationNode, self.structure)
        return self.edited_slices() if made else []

    def drawn_slices(self) -> list[int]:
        """The edited slices that were drawn by hand: a correction by box leaves out those that it wrote itself."""
        edited = self.edited_slices()
        if not edited:
            return []
        current = self._segment()
        return [k for k in edited if self._corrections.get(k) != np.packbits(current[k]).tobytes()]

    def export(self, path: Path) -> Iterator[None]:
        """As ``exportVolume``."""
        return exportVolume(self.volumeNode, path)

    def write(self, mask: Path, slices: list[int] | None) -> Generator[None, None, bool]:
        """Write a mask file into the segment, in the given slices or in all: one state of the undo.

        Returns:
            The generator's value: whether the segment is what the file says there, with nothing masked.

        Raises:
            SAMMixError: the volume is gone or changed its grid, or the segmentation cannot take the mask. Nothing has
                changed then.
        """
        self._checkPresence()
        array = importMask(mask, self.volumeNode)
        yield
        exact = yield from self._store(array, slices)
        rememberResult(self.segmentationNode, self.volumeNode, slices, self.structure)
        stamp(self.segmentationNode, self.structure)
        yield
        return exact

    def write_slices(self, mask: Path, slices: list[int]) -> Generator[None, None, bool]:
        """As :meth:`write` for a correction, whose file holds these slices only: they count as the user's."""
        self._checkPresence()
        array = importSlices(mask, slices, self.volumeNode)
        yield
        exact = yield from self._store(array, slices)
        written = self._segment()
        self._corrections |= {k: np.packbits(written[k]).tobytes() for k in slices}
        stamp(self.segmentationNode, self.structure)
        yield
        return exact

    @property
    def version(self) -> str:
        """Tells the states of the segment apart that writes made; undo and redo bring one back."""
        return version(self.segmentationNode, self.structure) if self._inScene() else ""

    def areas(self) -> list[float]:
        """mm2 of the segment in each slice, counted anew only when its voxels have changed."""
        voxels = self._voxels()
        if not voxels:
            return [0.0] * self.size()[0]
        if self._areas[:1] != (voxels,):
            columns = stackToRas(self.volumeNode)[:3, :2]
            pixel = float(np.linalg.norm(columns[:, 0]) * np.linalg.norm(columns[:, 1]))
            stack = self._segment()
            counts, within = np.zeros(len(stack), int), bounds(stack)  # counting the whole takes five times as long
            counts[within[0]] = np.count_nonzero(stack[within], axis=(1, 2))
            self._areas = (voxels, (counts * pixel).tolist())
        return self._areas[1]

    def take_areas(self, areas: list[float]) -> None:
        """What somebody else has counted in the voxels as they are now."""
        self._areas = (self._voxels(), areas)

    def show(self, findings: Findings) -> Iterator[None]:
        """Draw heat map, chart and box of what was found."""
        if self._drawing is not None:
            yield from self._drawing.take(findings)

    # What the widget asks

    @property
    def drawing(self) -> CaseDrawing:
        """What is drawn over it; a case without overlays has none."""
        assert self._drawing is not None
        return self._drawing

    def watchSegment(self, callback: Callable[[], None]) -> Watch:
        """Call back whenever the voxels of the segmentation may have changed."""
        events = (
            slicer.vtkSegmentation.SourceRepresentationModified,
            slicer.vtkSegmentation.SegmentModified,  # all that an undo tells
            slicer.vtkSegmentation.SegmentRemoved,
        )
        return Watch(self.segmentationNode.GetSegmentation(), events, lambda _: callback())

    def jump(self, k: int) -> None:
        """Go to a slice; one beyond the stack means its end."""
        jumpToSlice(self.volumeNode, min(max(k, 0), self.size()[0] - 1))

    def jumpToReview(self, findings: Findings) -> None:
        """Go to the next slice where the model is unsure, the worst first."""
        if (k := nextToReview(findings.review, self.current_slice())) is not None:
            self.jump(k)

    def _checkPresence(self) -> None:
        if not self.present:
            raise SAMMixError(texts.removed(self.name))

    def _store(self, array: np.ndarray, slices: list[int] | None) -> Generator[None, None, bool]:
        """Write an array of the volume's grid; a segmentation is made where there is none."""
        if not self._inScene():
            self.segmentationNode = createSegmentation(self.volumeNode, self.structure)
        else:
            self._saveStateForUndo(self.segmentationNode)
        yield
        brush = Brush(self.structure, self.editorNode)
        exact = writeSegment(array, self.volumeNode, self.segmentationNode, slices, brush)
        yield
        return exact

    def _voxels(self) -> tuple:
        """Tells states of the segment's voxels apart; empty where there is no segment."""
        segmentation = self.segmentationNode
        if not self._inScene() or (segmentId := findSegment(segmentation, self.structure)) is None:
            return ()
        image = segmentation.GetSegmentation().GetSegment(segmentId).GetRepresentation(LABELMAP)
        return (segmentation.GetID(), segmentId, image.GetMTime() if image else 0, self.scan)

    def _inScene(self) -> bool:
        return self.segmentationNode is not None and self.segmentationNode.GetScene() is not None

    def _segment(self) -> np.ndarray:
        return toStack(readSegment(self.segmentationNode, self.volumeNode, self.structure), self.volumeNode)
