"""The file formats of slice data sets: each reader yields :class:`PatientSlices`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from SAMMixLib.data.readers.hdf5 import read_hdf5
from SAMMixLib.data.readers.npz import read_npz
from SAMMixLib.data.readers.pairs import listed_pairs, pairs_among, read_pairs
from SAMMixLib.data.readers.patient import PatientSlices
from SAMMixLib.data.readers.training_sets import read_training_set
from SAMMixLib.data.training_set import CARD
from SAMMixLib.errors import SAMMixError


def read_patients(
    path, hu_range: tuple[float, float], wanted: set[str] | None, mask_value: int | None = None
) -> Iterator[PatientSlices]:
    """The scans in a file, a folder or a list of (scan, mask) pairs, those of the patients ``wanted`` only."""
    if not isinstance(path, str | Path):
        yield from read_pairs(listed_pairs(path), wanted, mask_value)
        return
    path, files = _files(Path(path))
    if path / CARD in files:
        if mask_value is not None:
            raise SAMMixError(f"{path}: a training set holds the masks of one structure; leave mask_value out")
        yield from read_training_set(path, wanted)
    elif arrays := [file for file in files if file.suffix == ".npz"]:
        for file in arrays:
            yield from read_npz(file, hu_range, wanted, mask_value)
    elif tables := [file for file in files if file.suffix in (".h5", ".hdf5")]:
        for file in tables:
            yield from read_hdf5(file, hu_range, wanted, mask_value)
    else:
        yield from read_pairs(pairs_among(files), wanted, mask_value)


def patients_in(path: str | Path) -> list[str]:
    """The patients of a data set; of scans beside their masks without reading a voxel.

    Raises:
        SAMMixError: as :func:`read_patients`.
    """
    path, files = _files(Path(path))
    if path / CARD in files or any(file.suffix in (".npz", ".h5", ".hdf5") for file in files):
        return sorted({scan.patient for scan in read_patients(path, (0, 1), None)})
    return sorted(pair.patient for pair in pairs_among(files))


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The path, and what is in it but for hidden files, such as the ``._`` files that macOS leaves beside others."""
    if not path.exists():
        raise SAMMixError(f"{path}: no such file or folder; check the path")
    return path, sorted(file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else [path]
