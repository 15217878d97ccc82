"""Scans beside their masks: LiTS, TotalSegmentator, pairs by name, lists of pairs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from SAMMixLib.data.readers.patient import PatientSlices

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
MASK_ENDINGS = ("liver", "mask", "seg", "segmentation")  # the first that exists is taken

Pair = tuple[str, Path, Path | None]
"""Patient, scan, mask."""


def pairs_among(files: Sequence[Path]) -> list[Pair]:
    return _lits(files) or _totalsegmentator(files) or _named_pairs(files)


def listed_pairs(paths: Sequence[tuple[str | Path, str | Path | None]]) -> list[Pair]:
    """Patients are named by their scan's file, and by its folder too where files of several folders share a name."""
    pairs = [(Path(scan), Path(mask) if mask else None) for scan, mask in paths]
    names = Counter(_patient(scan) for scan, _ in pairs)
    return [
        (_patient(scan) if names[_patient(scan)] == 1 else f"{scan.parent.name}-{_patient(scan)}", scan, mask)
        for scan, mask in pairs
    ]


def read_pairs(pairs: Sequence[Pair], wanted: set[str] | None, mask_value: int | None) -> Iterator[PatientSlices]:
    from SAMMixLib.imaging.masks import axial_mask
    from SAMMixLib.imaging.volume import read_volume

    for name, scan, mask in pairs:
        if wanted is None or name in wanted:
            volume = read_volume(scan)
            stack = volume.axial()
            yield PatientSlices(
                name,
                scan,
                stack.array,
                np.arange(len(stack.array)),
                axial_mask(mask, volume, mask_value) if mask else None,
                spacing=stack.spacing[1:],
            )


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


def _existing(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}{suffix}" for suffix in SCAN_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _stem(file: Path) -> str:
    return re.sub(r"(\.nii\.gz|\.[^.]*)$", "", file.name)


def _patient(scan: Path) -> str:
    return re.sub(r"[-_](ct|img)$", "", _stem(scan))
