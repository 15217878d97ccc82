"""SimpleITK with its messages kept from the terminal, and small steps with its images."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk


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


def image_like(array: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """An image of an array [z, y, x] on the grid of another image of the same size."""
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    return image
