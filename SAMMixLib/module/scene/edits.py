"""Which slices the user changed since the last result, so that a new run can ask before it writes over them.

A hash of every slice of the result lies in a tag of the structure's segment: it is saved with the segment in any scene
or ``.seg.nrrd``, follows it into another segmentation, and an undo takes it back together with the voxels.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

import numpy as np
import vtk

from SAMMixLib.module.scene.geometry import toStack
from SAMMixLib.module.scene.segments import findSegment, readSegment
from SAMMixLib.structure import LIVER, Structure

TAG = "SAMMix.result"
VERSION = "SAMMix.version"  # tag: which of our writes the voxels are from


def rememberResult(
    segmentationNode, volumeNode, slices: Iterable[int] | None = None, structure: Structure = LIVER
) -> None:
    """Take the structure's segment as it stands for a result of ours, in the given slices k or in all.

    To be called after the result of a run was written. Not after a correction (a box that the user dragged, "no liver
    here"): such a slice then counts as the user's, and a new run asks before it writes over it.
    """
    own = findSegment(segmentationNode, structure)
    if own is None:
        return
    hashes = _hashes(readSegment(segmentationNode, volumeNode, structure), volumeNode)
    if slices is not None:
        known = _known(segmentationNode, len(hashes), structure)
        for k in slices:
            known[k] = hashes[k]
        hashes = known
    segmentationNode.GetSegmentation().GetSegment(own).SetTag(TAG, ",".join(hashes))


def stamp(segmentationNode, structure: Structure = LIVER) -> None:
    """Give the structure's segment, as it was just written, a version of its own."""
    if (own := findSegment(segmentationNode, structure)) is not None:
        segmentationNode.GetSegmentation().GetSegment(own).SetTag(VERSION, secrets.token_hex(8))


def version(segmentationNode, structure: Structure = LIVER) -> str:
    """The version that the last write, undo or redo left; nothing where there is none."""
    own, text = findSegment(segmentationNode, structure), vtk.reference("")
    found = own is not None and segmentationNode.GetSegmentation().GetSegment(own).GetTag(VERSION, text)
    return str(text) if found else ""


def editedSlices(segmentationNode, volumeNode, structure: Structure = LIVER) -> list[int]:
    """The slices k of the structure's segment that are not as the last result left them.

    Where there was no result of ours (the user drew the segment, or it came from elsewhere) these are all slices that
    hold any of it.
    """
    if findSegment(segmentationNode, structure) is None:
        return []
    hashes = _hashes(readSegment(segmentationNode, volumeNode, structure), volumeNode)
    return [k for k, known in enumerate(_known(segmentationNode, len(hashes), structure)) if known != hashes[k]]


def resultTag(segmentationNode, structure: Structure = LIVER) -> str:
    """What is remembered of the last result of ours; nothing where there was none."""
    own, text = findSegment(segmentationNode, structure), vtk.reference("")
    found = own is not None and segmentationNode.GetSegmentation().GetSegment(own).GetTag(TAG, text)
    return str(text) if found else ""


def _known(segmentationNode, count: int, structure: Structure) -> list[str]:
    """The hashes of the last result; those of empty slices where there is none for a stack of this size."""
    known = resultTag(segmentationNode, structure).split(",")
    return known if len(known) == count else [""] * count


def _hashes(mask: np.ndarray, volumeNode) -> list[str]:
    """A short hash of each slice of the stack, nothing for an empty one."""
    return [
        hashlib.blake2b(np.packbits(one).tobytes(), digest_size=8).hexdigest() if one.any() else ""
        for one in toStack(mask, volumeNode)
    ]
