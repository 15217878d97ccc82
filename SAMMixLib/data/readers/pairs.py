"""Scans beside their masks: LiTS, TotalSegmentator, the Decathlon, nnU-Net, pairs by name, lists of pairs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMMixLib.data.readers.patient import PatientSlices
from SAMMixLib.errors import SAMMixError

SUFFIX = re.compile(r"(\.seg\.nrrd|\.nii\.gz|\.nii|\.nrrd|\.nhdr|\.mha|\.mhd)$", re.IGNORECASE)
MASK_ENDINGS = ("liver", "mask", "seg", "segmentation")  # the first that exists is taken
IS_MASK = re.compile(rf"[-_]({'|'.join(MASK_ENDINGS)})$", re.IGNORECASE)
LITS_VALUES = (1, 2)  # liver and tumour, which is liver, too
LIVER = "liver"
LESION = re.compile("tumou?r|cancer|lesion|metasta", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A patient's scan and mask.

    ``values`` are the mask's values that are known to be the structure, of which any may be absent; None: nobody knows.
    """

    patient: str
    scan: Path
    mask: Path | None
    values: tuple[int, ...] | None = None


def pairs_among(files: Sequence[Path]) -> list[Pair]:
    """The pairs of the layout that the files and folders of a data set have."""
    folders = {file.name: file for file in files if file.is_dir()}
    if "imagesTr" in folders:
        return _decathlon(folders["imagesTr"].parent)
    if files and files[0].parent.name == "imagesTr":
        return _decathlon(files[0].parent.parent)
    return _lits(files) or _totalsegmentator(files) or _named_pairs(files)


def listed_pairs(paths: Sequence[tuple[str | Path, str | Path | None]]) -> list[Pair]:
    """Patients are named by their scan's file, and by its folder too where files of several folders share a name."""
    pairs = [(Path(scan), Path(mask) if mask else None) for scan, mask in paths]
    names = Counter(_patient(scan) for scan, _ in pairs)
    return [
        Pair(_patient(scan) if names[_patient(scan)] == 1 else f"{scan.parent.name}-{_patient(scan)}", scan, mask)
        for scan, mask in pairs
    ]


def read_pairs(pairs: Sequence[Pair], wanted: set[str] | None, mask_value: int | None) -> Iterator[PatientSlices]:
    from SAMMixLib.imaging.masks import axial_mask
    from SAMMixLib.imaging.volume import read_volume

    for pair in pairs:
        if wanted is None or pair.patient in wanted:
            volume = read_volume(pair.scan)
            stack = volume.axial()
            label = pair.values if mask_value is None else mask_value if pair.values is None else (mask_value,)
            yield PatientSlices(
                pair.patient,
                pair.scan,
                stack.array,
                np.arange(len(stack.array)),
                axial_mask(pair.mask, volume, label) if pair.mask else None,
                spacing=stack.spacing[1:],
            )


def _lits(files: Sequence[Path]) -> list[Pair]:
    scans = [file for file in files if re.fullmatch(r"volume-\d+\.nii(\.gz)?", file.name, re.IGNORECASE)]
    scans.sort(key=lambda file: int(re.findall(r"\d+", file.name)[0]))
    return [
        Pair(_stem(scan), scan, _existing(scan.parent, _stem(scan).replace("volume", "segmentation")), LITS_VALUES)
        for scan in scans
    ]


def _totalsegmentator(files: Sequence[Path]) -> list[Pair]:
    scans = [file / "ct.nii.gz" for file in files if (file / "ct.nii.gz").is_file()]
    scans += [file for file in files if file.name == "ct.nii.gz"]
    return [Pair(scan.parent.name, scan, _existing(scan.parent / "segmentations", LIVER)) for scan in scans]


def _decathlon(root: Path) -> list[Pair]:
    """The Decathlon's layout, and nnU-Net's, where scans are called ``NAME_0000``; ``dataset.json`` names the labels.

    Raises:
        SAMMixError: scans of several channels, or a damaged ``dataset.json``.
    """
    values = _label_values(root / "dataset.json")
    pairs = []
    for scan in _volumes(sorted((root / "imagesTr").iterdir())):
        name = _stem(scan)
        channel = re.search(r"_(\d{4})$", name)
        if channel and int(channel[1]) > 0:
            raise SAMMixError(f"{scan}: a scan of several channels; a CT has one")
        exact = _existing(root / "labelsTr", name)
        patient = name if exact or not channel else name[:-5]
        pairs.append(Pair(patient, scan, exact or _existing(root / "labelsTr", patient), values))
    return pairs


def _label_values(file: Path) -> tuple[int, ...] | None:
    """The values of the liver that a ``dataset.json`` names: with its lesions where it names nothing else."""
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8-sig"))["labels"]
        labels: dict[str, tuple[int, ...]] = {}
        for key, value in said.items():
            if str(key).isdecimal():  # the Decathlon and nnU-Net 1: value -> name
                labels[str(value)] = (int(key),)
            else:  # nnU-Net 2: name -> value, or the values of a region
                labels[key] = tuple(map(int, value)) if isinstance(value, list) else (int(value),)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SAMMixError(f"{file}: names no labels ({type(error).__name__}); correct it, or remove it") from None
    labels = {name: values for name, values in labels.items() if values != (0,)}
    organs = [name for name in labels if LIVER in name.casefold() and not LESION.search(name)]
    lesions = [name for name in labels if LESION.search(name)]
    if len(labels) == 1:
        return next(iter(labels.values()))
    if not organs:
        return None
    chosen = [*organs, *lesions] if len(organs) + len(lesions) == len(labels) else organs
    return tuple(sorted({value for name in chosen for value in labels[name]}))


def _named_pairs(files: Sequence[Path]) -> list[Pair]:
    """Pairs by name. A mask whose scan is not there is passed over; a scan without mask needs labels.csv."""
    pairs = []
    for scan in _volumes(files):
        if IS_MASK.search(_stem(scan)) or scan.name.lower().endswith(".seg.nrrd"):
            continue
        name = _patient(scan)
        stems = [f"{name}{mark}{ending}" for ending in MASK_ENDINGS for mark in "_-"]
        found = (_existing(scan.parent, stem) for stem in stems)
        mask = next((mask for mask in found if mask), None)
        pairs.append(Pair(name, scan, mask or _existing(scan.parent, name, ".seg.nrrd")))
    return pairs


def _volumes(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if SUFFIX.search(file.name) and not file.name.startswith(".")]


def _existing(folder: Path, stem: str, suffix: str = "") -> Path | None:
    """The volume of this name in a folder, whatever its suffix, or of this suffix."""
    if not folder.is_dir():
        return None
    for file in _volumes(sorted(folder.iterdir())):
        if _stem(file).casefold() == stem.casefold() and file.name.lower().endswith(suffix):
            return file
    return None


def _stem(file: Path) -> str:
    return SUFFIX.sub("", file.name)


def _patient(scan: Path) -> str:
    return re.sub(r"[-_](ct|img)$", "", _stem(scan), flags=re.IGNORECASE)
