"""Scores of whole data sets: a row for each slice and volume, a summary with confidence intervals, and files of them.

Every figure says where it is from: provenance (data, split, labelled slices, seed) and prompt source. Means over
slices leave out the slices where both masks are empty; a missed slice and a false alarm count as Dice 0, and have no
distance. Both are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from SAMMixLib.data.slices import SliceDataset
from SAMMixLib.errors import SAMMixError
from SAMMixLib.evaluation.bootstrap import Estimate, mean, roc_auc
from SAMMixLib.evaluation.metrics import score_masks, score_overlap
from SAMMixLib.imaging.resize import ResizeToSquare
from SAMMixLib.progress import Progress, silent

if TYPE_CHECKING:
    from SAMMixLib.inference.slices import SlicePredictions

PROVENANCE = ("data", "split", "labelled_slices", "seed")
NOT_STATED = "not stated"
PIXELS = 256
"""Distances in pixels are those of the slice at this size, as in the paper."""

NO_REFERENCE = "no reference"
"""The case of a slice with liver that nobody has outlined: it counts for the detection of liver only."""

SCORES = ("dice", "iou", "hd_mm", "hd95_mm", "assd_mm", "hd_px", "hd95_px", "assd_px")


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate_slices` and :func:`evaluate_volumes` give back.

    ``provenance`` holds at least ``data``, ``split``, ``labelled_slices``, ``seed`` and ``prompt``. ``slices`` and
    ``volumes`` are rows, NaN where a figure is not defined. ``summary`` names each figure's estimate; ``counts`` says
    how many slices and volumes are of which case.
    """

    provenance: dict[str, Any]
    slices: list[dict[str, Any]]
    volumes: list[dict[str, Any]]
    summary: dict[str, Estimate]
    counts: dict[str, int]


def evaluate_slices(
    found: SlicePredictions,
    dataset: SliceDataset,
    prompt: str,
    provenance: Mapping[str, Any],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Score predictions on a data set of slices.

    Args:
        found: masks, p(liver) and which slices the classifier prompted, by the model's own threshold. Detection of
            liver is counted by the last.
        dataset: the n slices with their labels and masks. A patient's volume row is the stack of the slices given,
            without distances, for slices may be left out between them.
        prompt: "cam" (nothing but the image went in) or "oracle" (boxes of the reference masks).
        provenance: data, split, labelled_slices and seed of the model, and what else is to be carried along.
        seed: of the confidence intervals.

    Raises:
        SAMMixError: there is not one prediction for each slice, or the prompt source is neither.
    """
    if len(found.masks) != len(dataset) or len(found.p_liver) != len(dataset):
        raise SAMMixError(
            f"{len(found.masks)} masks and {len(found.p_liver)} p(liver) for {len(dataset)} slices; give one for each"
        )
    masks = np.asarray(found.masks) > 0
    evaluable = dataset.has_mask | ~dataset.labels  # a slice without liver has an empty reference
    rows = []
    for n, mask in enumerate(masks):
        progress("score", n, len(masks))
        rows.append(
            {
                "patient": str(dataset.patients[n]),
                "slice": int(dataset.indices[n]),
                "liver": bool(dataset.labels[n]),
                "p_liver": float(found.p_liver[n]),
                "seen": bool(found.prompted[n]),
                "masked": bool(mask.any()),
            }
            | (_slice_scores(mask, dataset.masks[n], dataset.spacings[n]) if evaluable[n] else {"case": NO_REFERENCE})
        )
    progress("score", len(masks), len(masks))
    volumes = []
    for name in dataset.patient_names():
        own = evaluable & (dataset.patients == name)
        volumes.append(
            {"patient": name, "slices": int(own.sum())} | asdict(score_overlap(masks[own], dataset.masks[own]))
        )
    return _evaluation(rows, volumes, _stated(provenance, prompt), seed)


def evaluate_volumes(
    pairs: Sequence[tuple[str | Path, str | Path]],
    provenance: Mapping[str, Any],
    prompt: str = NOT_STATED,
    *,
    label: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Score mask files against reference files, in 3D and in each axial slice.

    Args:
        pairs: (prediction, reference) paths; the grids must be the same but for the order of their axes.
        provenance: as in :func:`evaluate_slices`.
        prompt: where the prompts of the predictions came from, "cam" or "oracle", if that is known.
        label: which label of the references is liver; by default every voxel above 0.

    Raises:
        SAMMixError: a file cannot be read, or the two lie on different grids.

    Example:
        >>> scores = evaluate_volumes([("liver.nii.gz", "liver.nii.gz")], {"data": "the reference itself"})
        >>> scores.volumes[0]["dice"]
        1.0
    """
    rows, volumes = [], []
    names = _names([Path(prediction) for prediction, _ in pairs])
    for n, (name, (prediction, reference)) in enumerate(zip(names, pairs, strict=True)):
        progress("score", n, len(pairs))
        mask, truth, spacing = _on_one_grid(Path(prediction), Path(reference), label)
        pixel = ResizeToSquare(truth.shape[1:], spacing[1:], PIXELS).pixel_mm
        ml = float(np.prod(spacing)) / 1000
        scores = score_masks(mask, truth, spacing, pixel)
        volumes.append(
            {"patient": name, "slices": len(truth)}
            | asdict(scores)
            | {"volume_ml": scores.voxels * ml, "reference_ml": scores.reference_voxels * ml}
        )
        for k, (flat, expected) in enumerate(zip(mask, truth, strict=True)):
            seen = bool(flat.any())
            row = {"patient": name, "slice": k, "liver": bool(expected.any()), "p_liver": nan, "seen": seen}
            rows.append(row | {"masked": seen} | asdict(score_masks(flat, expected, spacing[1:], pixel)))
    progress("score", len(pairs), len(pairs))
    return _evaluation(rows, volumes, _stated(provenance, prompt), seed)


def _slice_scores(mask: np.ndarray, reference: np.ndarray, spacing: np.ndarray) -> dict[str, Any]:
    scale = len(reference) / PIXELS
    if np.isnan(spacing).any():
        return asdict(score_masks(mask, reference, pixel=scale))
    return asdict(score_masks(mask, reference, tuple(spacing.tolist()), float(spacing[0]) * scale))


def _stated(provenance: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    if prompt not in ("cam", "oracle", NOT_STATED):
        raise SAMMixError(f"the prompt source is '{prompt}'; say cam or oracle")
    return dict.fromkeys(PROVENANCE, NOT_STATED) | dict(provenance) | {"prompt": prompt}


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names, with their folder's where files of several folders share a name."""
    names = [file.name.split(".")[0] for file in files]
    return [
        name if names.count(name) == 1 else f"{file.parent.name}/{name}"
        for name, file in zip(names, files, strict=True)
    ]


def _on_one_grid(
    prediction: Path, reference: Path, label: int | None
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Both masks, bool [k, j, i] in axial order, with their spacing in mm."""
    from SAMMixLib.imaging.grid import AxialGrid
    from SAMMixLib.imaging.masks import mask_on_grid, read_mask, whole_grid

    mask, truth = read_mask(prediction), read_mask(reference, label)
    try:
        whole = whole_grid(truth, mask)
        grid = AxialGrid.of(whole)
        found, expected = (grid.to_stack(mask_on_grid(one, whole)) > 0 for one in (mask, truth))
    except SAMMixError as error:
        raise SAMMixError(f"{prediction} against {reference}: {error}") from None
    return found, expected, grid.spacing


def _evaluation(rows: list, volumes: list, provenance: dict[str, Any], seed: int) -> Evaluation:
    patients = _column(rows, "patient", str)
    liver = _column(rows, "liver", bool)

    def over(values: np.ndarray, where: np.ndarray) -> Estimate:
        return mean(values[where], patients[where], seed)

    summary = {f"slice_{name}": mean(_column(rows, name), patients, seed) for name in SCORES}
    summary["liver_slice_dice"] = over(_column(rows, "dice"), liver)
    summary["liver_slice_iou"] = over(_column(rows, "iou"), liver)
    summary["sensitivity"] = over(_column(rows, "seen"), liver)
    summary["specificity"] = over(1 - _column(rows, "seen"), ~liver)
    p_liver = _column(rows, "p_liver")
    if not np.isnan(p_liver).any():
        summary["auc"] = roc_auc(p_liver, liver, patients, seed)
    if provenance["prompt"] != "oracle":
        summary["masked_without_liver"] = over(_column(rows, "masked"), ~liver)
    names = _column(volumes, "patient", str)
    for name in SCORES:
        summary[f"volume_{name}"] = mean(_column(volumes, name), names, seed)
    error = _column(volumes, "size_error_percent")
    summary["volume_error_percent"] = mean(error, names, seed)
    summary["volume_absolute_error_percent"] = mean(np.abs(error), names, seed)
    summary = {name: estimate for name, estimate in summary.items() if estimate.n}
    return Evaluation(provenance, rows, volumes, summary, _counts("slices", rows) | _counts("volumes", volumes))


def _counts(what: str, rows: list[dict[str, Any]]) -> dict[str, int]:
    cases = [row["case"] for row in rows]
    return {what: len(rows)} | {f"{what} {case}": cases.count(case) for case in sorted(set(cases))}


def _column(rows: list[dict[str, Any]], name: str, dtype: type = float) -> np.ndarray:
    return np.array([row.get(name, nan) for row in rows], dtype)
