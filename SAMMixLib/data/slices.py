"""Slice data sets: axial CT slices with an image-level label each, and a mask where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from SAMMixLib.data.readers import PatientSlices, read_patients
from SAMMixLib.data.readers.labels import labels_beside
from SAMMixLib.errors import SAMMixError
from SAMMixLib.imaging.resize import ResizeToSquare


@dataclass
class SliceDataset:
    """n axial slices of S x S pixels, anterior up and the patient's right on the left."""

    images: np.ndarray  # int16 [n, S, S], HU
    labels: np.ndarray  # bool [n], liver in this slice
    masks: np.ndarray  # uint8 [n, S, S], 0 or 1; zeros where there is no mask
    has_mask: np.ndarray  # bool [n]
    patients: np.ndarray  # str [n]
    indices: np.ndarray  # int [n], the number of the slice in its scan
    spacings: np.ndarray  # float32 [n, 2], mm (row, column) of the S x S slice; NaN where unknown

    def __len__(self) -> int:
        return len(self.images)

    def select(self, which: np.ndarray | Sequence[int]) -> SliceDataset:
        """The slices at these positions, or those where a boolean array [n] is true."""
        which = np.asarray(which)
        if which.size == 0:
            which = which.astype(int)
        return SliceDataset(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    @staticmethod
    def concatenate(datasets: Sequence[SliceDataset]) -> SliceDataset:
        """One data set of all slices in order; all must have the same S."""
        return SliceDataset(
            **{
                field.name: np.concatenate([getattr(dataset, field.name) for dataset in datasets])
                for field in fields(SliceDataset)
            }
        )

    def patient_names(self) -> list[str]:
        """The patients, each once, sorted."""
        return sorted(set(self.patients.tolist()))


def read_slices(
    path: str | Path | Sequence[tuple[str | Path, str | Path | None]],
    size: int = 256,
    hu_range: tuple[float, float] = (-40, 160),
    *,
    middle: float = 1.0,
    patients: Iterable[str] | None = None,
    mask_value: int | None = None,
) -> SliceDataset:
    """Read a slice data set; the format is detected by what is in ``path``.

    - a training set (:class:`SAMMixLib.data.training_set.TrainingSet`): its ticked slices;
    - ``.npz`` files, one or a folder: ``image`` [n, h, w], ``mask``, ``slice``, and if there are several patients or
      observers, ``patient`` and ``annotator`` (the first annotator of each slice counts);
    - the paper's ``.hdf5`` files: groups ``Slice{k}`` with ``Slice``, ``Segmentation`` and attribute ``ImageLabel``;
    - LiTS: ``volume-N.nii[.gz]`` beside ``segmentation-N.nii[.gz]``; tumour counts as liver;
    - TotalSegmentator: ``sNNNN/ct.nii.gz`` with ``sNNNN/segmentations/liver.nii.gz``;
    - the Medical Segmentation Decathlon and nnU-Net: ``imagesTr`` with ``labelsTr``; ``dataset.json`` names the liver;
    - pairs in a folder: ``X.nii.gz``, ``X_ct`` or ``X_img`` beside ``X_liver``, ``X_mask``, ``X_seg`` or
      ``X_segmentation`` (``-`` does as well as ``_``; ``.nii``, ``.nrrd``, ``.mha`` and ``.mhd`` too), or
      ``X.seg.nrrd``;
    - a list of (scan, mask or None) paths.

    Slices without a mask need their image-level label in a ``labels.csv`` beside the data, with the columns patient,
    slice and label (0 or 1); slices of such scans that it does not list are left out.

    ``size`` is S. ``hu_range`` is what 0 and 255 of a uint8 image stand for in HU. ``middle`` is the share of each
    scan's slices to keep around its centre (the paper takes 0.3). ``patients`` keeps these patients only. With
    ``mask_value`` only this value of the masks counts, as 2 for the tumour in LiTS; by default the
    only value besides 0 does; where there are several, it must be given (LiTS and ``dataset.json`` tell by themselves).
    Raises :class:`SAMMixError` where a file is missing, damaged or does not fit.
    """
    wanted = None if patients is None else set(patients)
    parts = [_to_dataset(slices, size, middle) for slices in read_patients(path, hu_range, wanted, mask_value)]
    parts = [part for part in parts if len(part)]
    missing = sorted(wanted - {part.patients[0] for part in parts}) if wanted is not None else []
    if missing:
        raise SAMMixError(f"{path}: no slices of patient {', '.join(missing)}; check the names")
    if not parts:
        raise SAMMixError(f"{path}: no slices found; give a folder of scans with masks, .npz or .hdf5 files")
    return SliceDataset.concatenate(parts)


def _to_dataset(scan: PatientSlices, size: int, middle: float) -> SliceDataset:
    """The slices of ``scan`` as S x S pixels, HU rounded to int16, masks by half of the pixel's area."""
    keep = _in_the_middle(scan.indices, middle)
    labels = scan.labels
    if labels is None and scan.masks is not None:
        labels = (scan.masks > 0).any((1, 2))
    if labels is None:
        listed, labels = labels_beside(scan)
        keep &= listed
    images, labels, indices = scan.images[keep], labels[keep], scan.indices[keep]
    spacing = scan.spacing or (1.0, 1.0)
    if not np.isfinite(images).all():
        raise SAMMixError(f"{scan.file}: the image holds NaN or infinity; repair it first")
    resize = ResizeToSquare(images.shape[1:], spacing, size)
    squares = resize.apply(images)
    masks = np.zeros(squares.shape, np.uint8)
    if scan.masks is not None:
        masks[:] = resize.apply_mask(scan.masks[keep] > 0)
    n = len(squares)
    has_mask = np.full(n, scan.masks is not None) if scan.has_mask is None else scan.has_mask[keep]
    return SliceDataset(
        images=np.clip(np.rint(squares), -32768, 32767).astype(np.int16),
        labels=labels.astype(bool),
        masks=masks,
        has_mask=has_mask,
        patients=np.full(n, scan.patient),
        indices=indices.astype(int),
        spacings=np.full((n, 2), resize.pixel_mm if scan.spacing else np.nan, np.float32),
    )


def _in_the_middle(indices: np.ndarray, middle: float) -> np.ndarray:
    if not 0 < middle <= 1:
        raise SAMMixError(f"middle is {middle}; give a share of the slices above 0 and up to 1")
    low, high = indices.min(), indices.max()
    return np.abs(indices - (low + high) / 2) <= middle * (high - low) / 2


def choose_labelled(dataset: SliceDataset, count: int, seed: int) -> np.ndarray:
    """Positions of ``count`` slices with liver and mask, taken from the patients in turn, so that all count alike.

    The order of patients and of slices within a patient is random by ``seed``; the same seed gives the same slices,
    and a smaller count gives the first of a larger one. The positions come sorted.
    """
    usable = np.flatnonzero(dataset.labels & dataset.has_mask)
    if count > len(usable):
        raise SAMMixError(f"{count} labelled slices wanted, {len(usable)} have liver and a mask; ask for fewer")
    random = np.random.default_rng(seed)
    usable = random.permutation(usable)
    order = {name: place for place, name in enumerate(random.permutation(dataset.patient_names()))}
    turns: dict[str, int] = {}
    rank = []
    for name in dataset.patients[usable].tolist():
        turns[name] = turns.get(name, -1) + 1
        rank.append((turns[name], order[name]))
    taken = sorted(range(len(usable)), key=rank.__getitem__)[:count]
    return np.sort(usable[taken])


def split_patients(names: Iterable[str], parts: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Split patients at random by ``seed`` into the named ``parts``, each a count (int) or a share (float).

    Shares are of all patients; the last part takes the rest where the parts are shares that add up to 1.
    Example: ``split_patients(names, {"train": 0.7, "validation": 0.1, "test": 0.2}, seed=0)``.
    """
    shuffled = np.random.default_rng(seed).permutation(sorted(set(names))).tolist()
    bounds, total = [0], 0.0
    for value in parts.values():
        total += value if isinstance(value, int) else value * len(shuffled)
        bounds.append(round(total))
    if bounds[-1] > len(shuffled):
        raise SAMMixError(f"the parts {dict(parts)} need more than the {len(shuffled)} patients; make them smaller")
    return {name: sorted(shuffled[a:b]) for name, a, b in zip(parts, bounds[:-1], bounds[1:], strict=True)}
