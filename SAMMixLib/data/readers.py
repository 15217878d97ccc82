"""The file formats of slice data sets. Each reader yields scans; :func:`to_dataset` makes slices of them."""

from __future__ import annotations

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.data.training_set import CARD, TrainingSet
from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.resize import AIR_HU, frame_slices

if TYPE_CHECKING:
    from SAMMixLib.imaging.volume import Volume

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
MASK_ENDINGS = ("liver", "mask", "seg", "segmentation")  # the first that exists is taken
PAPER_HU = (-3055.0, 5811.0)
"""What 0 and 1 stand for in the paper's HDF5 files: the least and the greatest HU in LiTS."""

Pair = tuple[str, Path, Path | None]
"""Patient, scan, mask."""


@dataclass
class Scan:
    """The slices of one patient as a file holds them."""

    patient: str
    file: Path
    images: np.ndarray  # HU [n, rows, columns]
    indices: np.ndarray  # int [n]
    masks: np.ndarray | None = None  # [n, rows, columns], above 0 is the structure
    labels: np.ndarray | None = None  # bool [n]; None: by the masks, or by labels.csv
    spacing: tuple[float, float] | None = None  # mm (row, column)
    has_mask: np.ndarray | None = None  # bool [n]; None: every slice, or none


def scans_in(
    path, hu_range: tuple[float, float], wanted: set[str] | None, mask_value: int | None = None
) -> Iterator[Scan]:
    """The scans in a file, a folder or a list of (scan, mask) pairs, those of the patients ``wanted`` only."""
    if not isinstance(path, str | Path):
        yield from _read_pairs(_listed_pairs(path), wanted, mask_value)
        return
    path, files = _files(Path(path))
    if path / CARD in files:
        if mask_value is not None:
            raise SAMMixError(f"{path}: a training set holds the masks of one structure; leave mask_value out")
        yield from _training_set(path, wanted)
    elif arrays := [file for file in files if file.suffix == ".npz"]:
        for file in arrays:
            yield from _npz(file, hu_range, wanted, mask_value)
    elif tables := [file for file in files if file.suffix in (".h5", ".hdf5")]:
        for file in tables:
            yield from _hdf5(file, hu_range, wanted, mask_value)
    else:
        yield from _read_pairs(_pairs(files), wanted, mask_value)


def patients_in(path: str | Path) -> list[str]:
    """The patients of a data set; of scans beside their masks without reading a voxel.

    Raises:
        SAMMixError: as :func:`scans_in`.
    """
    path, files = _files(Path(path))
    if path / CARD in files or any(file.suffix in (".npz", ".h5", ".hdf5") for file in files):
        return sorted({scan.patient for scan in scans_in(path, (0, 1), None)})
    return sorted(name for name, _, _ in _pairs(files))


def _files(path: Path) -> tuple[Path, list[Path]]:
    if not path.exists():
        raise SAMMixError(f"{path}: no such file or folder; check the path")
    return path, sorted(path.iterdir()) if path.is_dir() else [path]


def _pairs(files: Sequence[Path]) -> list[Pair]:
    return _lits(files) or _totalsegmentator(files) or _named_pairs(files)


def to_dataset(scan: Scan, size: int, middle: float) -> SliceDataset:
    """Frame the slices of ``scan``: S x S pixels, HU rounded to int16, masks by half of the pixel's area."""
    keep = _in_the_middle(scan.indices, middle)
    labels = scan.labels
    if labels is None and scan.masks is not None:
        labels = (scan.masks > 0).any((1, 2))
    if labels is None:
        listed, labels = _labels_beside(scan)
        keep &= listed
    images, labels, indices = scan.images[keep], labels[keep], scan.indices[keep]
    spacing = (1.0, *(scan.spacing or (1.0, 1.0)))
    if not np.isfinite(images).all():
        raise SAMMixError(f"{scan.file}: the image holds NaN or infinity; repair it first")
    framed, frame = frame_slices(images, spacing, size, AIR_HU)
    masks = np.zeros(framed.shape, np.uint8)
    if scan.masks is not None:
        masks[:] = frame.reduce(scan.masks[keep] > 0, 0) >= 0.5
    n = len(framed)
    has_mask = np.full(n, scan.masks is not None) if scan.has_mask is None else scan.has_mask[keep]
    return SliceDataset(
        images=np.clip(np.rint(framed), -32768, 32767).astype(np.int16),
        labels=labels.astype(bool),
        masks=masks,
        has_mask=has_mask,
        patients=np.full(n, scan.patient),
        indices=indices.astype(int),
        spacings=np.full((n, 2), frame.pixel_mm if scan.spacing else np.nan, np.float32),
    )


def _in_the_middle(indices: np.ndarray, middle: float) -> np.ndarray:
    if not 0 < middle <= 1:
        raise SAMMixError(f"middle is {middle}; give a share of the slices above 0 and up to 1")
    low, high = indices.min(), indices.max()
    return np.abs(indices - (low + high) / 2) <= middle * (high - low) / 2


def _labels_beside(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """For the slices of a scan without mask: whether ``labels.csv`` lists them, and their labels."""
    folder = scan.file.parent
    table = next((f for f in (folder / "labels.csv", folder.parent / "labels.csv") if f.is_file()), None)
    if table is None:
        raise SAMMixError(f"{scan.file}: has no mask; add one, or a labels.csv with the columns patient, slice, label")
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            known = {
                int(row["slice"]): int(row["label"]) for row in csv.DictReader(lines) if row["patient"] == scan.patient
            }
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise SAMMixError(f"{table}: not a table of patient, slice, label (0 or 1): {error!r}; correct it") from error
    if not known:
        raise SAMMixError(f"{table}: does not list patient {scan.patient}, who has no mask; add the slices' labels")
    listed = np.array([index in known for index in scan.indices.tolist()])
    return listed, np.array([bool(known.get(index, 0)) for index in scan.indices.tolist()])


def _training_set(folder: Path, wanted: set[str] | None) -> Iterator[Scan]:
    training_set = TrainingSet.open(folder)
    entries = [entry for entry in training_set.entries() if entry.active]
    if not entries:
        raise SAMMixError(f"{folder}: the training set has no ticked slices; collect some first")
    for patient, group in groupby(entries, key=lambda entry: entry.patient):
        if wanted is None or patient in wanted:
            own = list(group)
            images, masks = (np.stack(arrays) for arrays in zip(*map(training_set.load, own), strict=True))
            yield Scan(
                patient,
                own[0].file,
                images,
                np.array([entry.slice for entry in own]),
                masks,
                np.array([entry.label for entry in own]),
                own[0].spacing,
                np.array([entry.has_mask for entry in own]),
            )


def _npz(file: Path, hu_range: tuple[float, float], wanted: set[str] | None, mask_value: int | None) -> Iterator[Scan]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            data = {key: arrays[key] for key in ("image", "mask", "slice", "patient", "annotator") if key in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SAMMixError(f"{file}: cannot be read as .npz ({error}); write it again") from error
    for key in ("image", "slice"):
        if key not in data:
            raise SAMMixError(f"{file}: has no array '{key}'; a slice file needs image, slice and, for masks, mask")
    image = data["image"]
    n = len(data["slice"])
    if image.ndim != 3 or len(image) != n or ("mask" in data and data["mask"].shape != image.shape):
        shapes = ", ".join(f"{key} {array.shape}" for key, array in data.items())
        raise SAMMixError(f"{file}: shapes do not fit ({shapes}); image and mask must be [n, h, w], slice [n]")
    patient = data["patient"].astype(str) if "patient" in data else np.full(n, file.stem)
    first = _first_annotators(patient, data["slice"], data["annotator"]) if "annotator" in data else np.full(n, True)
    for name in dict.fromkeys(patient.tolist()):
        if wanted is None or name in wanted:
            own = np.flatnonzero(first & (patient == name))
            yield Scan(
                name,
                file,
                _to_hu(image[own], hu_range),
                data["slice"][own],
                _chosen(data["mask"][own], mask_value) if "mask" in data else None,
            )


def _first_annotators(patient: np.ndarray, index: np.ndarray, annotator: np.ndarray) -> np.ndarray:
    """Where a slice was outlined by several people, true for the lowest annotator's row only."""
    lowest: dict[tuple, int] = {}
    for row in np.argsort(annotator, kind="stable"):
        lowest.setdefault((patient[row], index[row]), row)
    first = np.zeros(len(patient), bool)
    first[list(lowest.values())] = True
    return first


def _to_hu(image: np.ndarray, hu_range: tuple[float, float]) -> np.ndarray:
    """uint8 stands for ``hu_range``; every other type holds HU."""
    if image.dtype != np.uint8:
        return image
    if not hu_range[0] < hu_range[1]:
        raise SAMMixError(f"the HU range {hu_range[0]:g} to {hu_range[1]:g} is empty; give the lower value first")
    return np.linspace(*hu_range, 256, dtype=np.float32)[image]


def _chosen(masks: np.ndarray, mask_value: int | None) -> np.ndarray:
    return masks if mask_value is None else masks == mask_value


def _hdf5(file: Path, hu_range: tuple[float, float], wanted: set[str] | None, mask_value: int | None) -> Iterator[Scan]:
    """The paper's layout; one file holds one patient. Slices stand as they are stored."""
    import h5py

    if wanted is not None and file.stem not in wanted:
        return
    try:
        with h5py.File(file) as groups:
            numbers = sorted(int(name[5:]) for name in groups if re.fullmatch(r"Slice\d+", name))
            if not numbers:
                raise SAMMixError(f"{file}: has no group Slice0, Slice1, ...; use the paper's layout")
            slices = [groups[f"Slice{k}"] for k in numbers]
            images = np.stack([group["Slice"][()] for group in slices])
            labels = np.array([np.ravel(group.attrs["ImageLabel"])[0] > 0 for group in slices])
            outlined = all("Segmentation" in group for group in slices)
            masks = np.stack([group["Segmentation"][()] for group in slices]) if outlined else None
            if mask_value is not None and outlined:
                masks, labels = masks == mask_value, None  # ImageLabel tells of all values
    except (OSError, KeyError, ValueError) as error:
        raise SAMMixError(
            f"{file}: not the paper's HDF5 layout ({error}); each group needs Slice and the attribute ImageLabel"
        ) from error
    if images.ndim != 3 or (masks is not None and masks.shape != images.shape):
        raise SAMMixError(f"{file}: Slice and Segmentation must be 2D and of one shape; write the file again")
    if images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1:
        images = PAPER_HU[0] + (PAPER_HU[1] - PAPER_HU[0]) * images.astype(np.float32)
    yield Scan(file.stem, file, _to_hu(images, hu_range), np.array(numbers), masks, labels)


def _lits(files: Sequence[Path]) -> list[Pair]:
    scans = [file for file in files if re.fullmatch(r"volume-\d+\.nii(\.gz)?", file.name)]
    scans.sort(key=lambda file: int(re.findall(r"\d+", file.name)[0]))
    return [
        (_stem(scan), scan, _existing(scan.parent, _stem(scan).replace("volume", "segmentation"))) for scan in scans
    ]


def _totalsegmentator(files: Sequence[Path]) -> list[Pair]:
    scans = [file / "ct.nii.gz" for file in files if (file / "ct.nii.gz").is_file()]
    scans += [file for file in files if file.name == "ct.nii.gz"]
    return [(scan.parent.name, scan, _existing(scan.parent / "segmentations", "liver")) for scan in scans]


def _named_pairs(files: Sequence[Path]) -> list[Pair]:
    """Pairs by name. A mask whose scan is not there is passed over; a scan without mask needs labels.csv."""
    volumes = [file for file in files if file.name.endswith(SCAN_SUFFIXES)]
    endings = re.compile(rf"[-_]({'|'.join(MASK_ENDINGS)})$")
    pairs = []
    for scan in (file for file in volumes if not endings.search(_stem(file))):
        name = _patient(scan)
        found = (_existing(scan.parent, f"{name}{mark}{ending}") for ending in MASK_ENDINGS for mark in "_-")
        pairs.append((name, scan, next((mask for mask in found if mask), None)))
    return pairs


def _listed_pairs(paths: Sequence[tuple[str | Path, str | Path | None]]) -> list[Pair]:
    """Patients are named by their scan's file, and by its folder too where files of several folders share a name."""
    pairs = [(Path(scan), Path(mask) if mask else None) for scan, mask in paths]
    names = Counter(_patient(scan) for scan, _ in pairs)
    return [
        (_patient(scan) if names[_patient(scan)] == 1 else f"{scan.parent.name}-{_patient(scan)}", scan, mask)
        for scan, mask in pairs
    ]


def _read_pairs(pairs: Sequence[Pair], wanted: set[str] | None, mask_value: int | None) -> Iterator[Scan]:
    from SAMMixLib.imaging.volume import read_volume

    for name, scan, mask in pairs:
        if wanted is None or name in wanted:
            volume = read_volume(scan)
            stack = volume.axial()
            yield Scan(
                name,
                scan,
                stack.array,
                np.arange(len(stack.array)),
                axial_mask(mask, volume, mask_value) if mask else None,
                spacing=stack.spacing[1:],
            )


def axial_mask(file: Path, volume: Volume, mask_value: int | None = None) -> np.ndarray:
    """The mask [k, j, i] on the axial stack of ``volume``, 0 and 1; see :func:`SAMMixLib.imaging.volume.read_mask`."""
    import SimpleITK as sitk

    from SAMMixLib.imaging.volume import Volume, mask_on_grid, read_mask

    try:
        on_grid = sitk.GetImageFromArray(mask_on_grid(read_mask(file, mask_value), volume.image))
    except SAMMixError as error:
        raise SAMMixError(f"{file} for {volume.path}: {error}") from None
    on_grid.CopyInformation(volume.image)
    return Volume(on_grid, file, ()).axial().array


def _existing(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}{suffix}" for suffix in SCAN_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _stem(file: Path) -> str:
    return re.sub(r"(\.nii\.gz|\.[^.]*)$", "", file.name)


def _patient(scan: Path) -> str:
    return re.sub(r"[-_](ct|img)$", "", _stem(scan))
