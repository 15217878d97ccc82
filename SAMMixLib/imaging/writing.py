"""Masks and scans as files: whole or not at all, never over what is not ours, a segment where 3D Slicer opens it."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic, check_apart
from SAMMixLib.imaging.grid import SAME_VOXEL, AxialGrid
from SAMMixLib.imaging.itk import image_like, quiet_itk, takes_name
from SAMMixLib.imaging.nifti import OURS, read_nifti, write_nifti
from SAMMixLib.imaging.volume import suffix_of
from SAMMixLib.structure import LIVER, Structure

WRITABLE = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha")
MARK = "SAMMix_wrote_this"
"""The key in the header of an NRRD or MetaImage file that tells that we wrote it; in NIfTI ``descrip`` does."""
HEADER_BYTES = 1 << 16


def check_output(path: str | Path, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure, before the long work, that a mask can be written to ``path`` and destroys nothing.

    Args:
        overwrite: whether a file that is no mask of ours may be replaced.
        inputs: files and folders that are read; none of them, nor a file in such a folder, is ever replaced.

    Raises:
        SAMMixError: unknown suffix, a name that is too long, the folder is missing or not writable, the path is a
            folder, an input by any name, write-protected, no regular file, or not a mask of ours.
    """
    path = Path(path)
    suffix_of(path, WRITABLE)
    check_replaceable(path, inputs)
    if path.exists() and not overwrite and not is_ours(path):
        raise SAMMixError(f"{path}: is there and not written by SAMMix; choose another name, or add --overwrite")


def check_replaceable(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that a file can be written to ``path``, and that what is there is no input, link to nothing, or device.

    Raises:
        SAMMixError: says what is in the way.
    """
    try:
        there = os.stat(path) if os.path.lexists(path) else None
        os.lstat(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and os.path.islink(path):
            raise SAMMixError(f"{path}: is a link to nothing; remove it or choose another name") from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise SAMMixError(f"{path}: the folder {path.parent} does not exist; make it first") from None
        raise SAMMixError(f"{path}: cannot be written ({error.strerror}); choose another name") from None
    _check_name(path)
    if there is not None:
        _check_there(path, there)
    check_apart(path, inputs)
    if not path.parent.is_dir():
        raise SAMMixError(f"{path}: the folder {path.parent} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SAMMixError(f"{path}: cannot write into the folder {path.parent} ({error.strerror})") from None


def _check_name(path: Path) -> None:
    try:
        os.lstat(path)
        longest = os.pathconf(path.parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise SAMMixError(f"{path}: the name is too long for this disk; choose a shorter one") from None
        longest = 255
    if len(os.fsencode(path.name)) > longest:
        raise SAMMixError(f"{path}: the name is too long for this disk; choose a shorter one")


def _check_there(path: Path, there: os.stat_result) -> None:
    if stat.S_ISDIR(there.st_mode):
        raise SAMMixError(f"{path}: is a folder; name a file in it")
    if not stat.S_ISREG(there.st_mode):
        raise SAMMixError(f"{path}: is no regular file (a pipe or a device); choose another name")
    if not there.st_mode & 0o222:
        raise SAMMixError(f"{path}: is write-protected; choose another name")


def check_output_folder(folder: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that files can be written into ``folder``, made if need be, and that it is none that is read.

    Raises:
        SAMMixError: its parent is missing, it is a file, an input folder, or nothing can be written there.
    """
    if not folder.parent.is_dir():
        raise SAMMixError(f"{folder}: its parent folder does not exist; make it first or choose another place")
    if os.path.lexists(folder) and not folder.is_dir():
        raise SAMMixError(f"{folder}: is a file; choose a folder")
    check_apart(folder, inputs)
    try:
        _check_name(folder)
        with tempfile.TemporaryFile(dir=folder if folder.is_dir() else folder.parent):
            pass
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be written into ({error.strerror})") from None


def is_ours(path: Path) -> bool:
    """Whether SAMMix wrote a file, by the mark in its header; nothing else of it is read."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            start = (gzip.GzipFile(fileobj=raw) if packed else raw).read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return False
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return start[148 : 148 + len(OURS)] == OURS
    return MARK.encode() in start


def write_mask(mask: sitk.Image, path: str | Path, overwrite: bool = False, structure: Structure = LIVER) -> None:
    """Write a mask as uint8 0 and 1, compressed, by suffix: .nii.gz, .nii, .nrrd, .seg.nrrd (a segment) or .mha.

    The file appears whole or not at all: it is written beside, read back and compared, then renamed. NIfTI keeps the
    header of the scan where that was NIfTI, too, and else stores the grid in single precision.

    Raises:
        SAMMixError: as :func:`check_output`, or the file could not be written whole (full disk).

    Example:
        >>> stack = read_volume("scan.nii.gz").axial()
        >>> bone = stack.array > 300
        >>> write_mask(stack.to_grid(bone), "bone.nii.gz")
    """
    path = Path(path)
    check_output(path, overwrite)
    suffix = suffix_of(path, WRITABLE)
    labels = mask != 0  # a new image: the metadata of the mask's own file stays behind
    if suffix.startswith(".nii"):
        labels = image_like(sitk.GetArrayFromImage(labels), mask)
    else:
        labels.SetMetaData(MARK, "1")
    if suffix == ".seg.nrrd":
        for key, value in segment_metadata(labels.GetSize(), structure).items():
            labels.SetMetaData(key, value)
    _write_whole(labels, path, suffix)


def write_scan(image: sitk.Image, path: str | Path, overwrite: bool = False) -> None:
    """Write a scan, compressed, by suffix as in :func:`write_mask`; it appears whole or not at all.

    Raises:
        SAMMixError: as :func:`write_mask`.
    """
    path = Path(path)
    check_output(path, overwrite)
    suffix = suffix_of(path, WRITABLE)
    image = sitk.Image(image)
    image.SetMetaData(MARK, "1")
    _write_whole(image, path, suffix)


def segment_metadata(size: Sequence[int], structure: Structure) -> dict[str, str]:
    """NRRD key/value pairs that make label 1 of a mask of this ``size`` (x, y, z) Slicer's one segment.

    The keys are those that Slicer's ``vtkMRMLSegmentationStorageNode`` reads. The representation is named twice because
    Slicer before 5.2 knew it as the master, later ones as the source.
    """
    return {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        "Segment0_ID": structure.name,
        "Segment0_Name": structure.name,
        "Segment0_NameAutoGenerated": "0",
        "Segment0_Color": " ".join(f"{channel:.6f}" for channel in structure.rgb),
        "Segment0_ColorAutoGenerated": "0",
        "Segment0_Extent": " ".join(f"0 {n - 1}" for n in size),
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Tags": f"Segmentation.Status:inprogress|TerminologyEntry:{structure.terminology}|",
    }


def _write_whole(image: sitk.Image, path: Path, suffix: str) -> None:
    try:
        with atomic(path) as beside:
            if suffix.startswith(".nii"):
                write_nifti(image, beside)
                written = read_nifti(beside)[0]
            else:
                written = _through_itk(image, beside, suffix)
            if not _same_image(written, image):
                raise OSError(errno.EIO, "the file came out incomplete")
    except (OSError, RuntimeError, SAMMixError) as error:
        reason = getattr(error, "strerror", None) or "the file came out incomplete"
        free = shutil.disk_usage(path.parent).free / 1e6
        raise SAMMixError(f"{path}: not written: {reason} ({free:.1f} MB free on this disk)") from None


def _through_itk(image: sitk.Image, path: Path, suffix: str) -> sitk.Image:
    """Write by ITK and read back; by way of another folder where ITK cannot take the name."""
    if takes_name(path):
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=True)
            return sitk.ReadImage(str(path))
    with tempfile.TemporaryDirectory(prefix="sammix-") as folder:
        written = _through_itk(image, Path(folder) / f"image{suffix}", suffix)
        shutil.copyfile(Path(folder) / f"image{suffix}", path)
    return written


def _same_image(one: sitk.Image, other: sitk.Image) -> bool:
    if one.GetSize() != other.GetSize():
        return False
    return AxialGrid.of(one).apart_from(AxialGrid.of(other)) < SAME_VOXEL and np.array_equal(
        sitk.GetArrayViewFromImage(one), sitk.GetArrayViewFromImage(other)
    )
