"""SimpleITK with its messages kept from the terminal, and with names that it cannot take kept from it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

LONGEST_REASON = 160  # characters
HEADER_KEY = "SAMMix_nifti_header"
"""Under this key of its metadata an image keeps the header of the NIfTI file that it came from."""


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep what ITK's C++ prints from the terminal; its file parsers write to descriptor 2, past ITK's own switches."""
    try:
        saved = os.dup(2)
    except OSError:  # a windowed program has no descriptor 2, so nothing is printed either
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def reason(error: RuntimeError) -> str:
    """What ITK says is wrong, in one line, without its source files and addresses."""
    text = str(error).strip()
    if "Unable to determine ImageIO" in text:
        return "its content is of another format, or damaged"
    if "MetaImageIO" in text:  # whose own reason is the last error of the system, whatever that was about
        return "it is damaged or truncated, or its data file is missing"
    told = re.sub(r"^(sitk::ERROR: |ITK ERROR: |\[nrrd\] )?(\w+(\(\w+\))?: )*", "", text.splitlines()[-1].strip())
    return told.rstrip(".:")[:LONGEST_REASON] or "ITK gives no reason"


def printable(text: str) -> str:
    """Text that UTF-8 holds, with a question mark for each byte of a name that is none."""
    return text.encode("utf-8", "replace").decode("utf-8")


def takes_name(path: str | Path) -> bool:
    """Whether ITK can be given this name; one that is not UTF-8 ends the process."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def name_for_itk(path: Path) -> Iterator[str]:
    """A name for ITK to read a file by: its own, or where ITK cannot take that, a link in a folder of our own.

    Files beside it whose names ITK takes are linked, too: a detached header names its voxels.
    """
    if takes_name(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="sammix-") as folder:
        for other in path.parent.iterdir():
            if other.name != path.name and takes_name(other.name) and other.is_file():
                (Path(folder) / other.name).symlink_to(other.absolute())
        link = Path(folder) / ("scan-" + os.fsencode(path.name).decode("ascii", "ignore"))
        link.symlink_to(path.absolute())
        yield str(link)


def image_like(array: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """An image of an array [z, y, x] on the grid of another image of the same size, with its NIfTI header if any."""
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    if grid.HasMetaDataKey(HEADER_KEY):
        image.SetMetaData(HEADER_KEY, grid.GetMetaData(HEADER_KEY))
    return image
