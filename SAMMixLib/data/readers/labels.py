"""``labels.csv``: image-level labels of slices without a mask."""

from __future__ import annotations

import csv

import numpy as np

from SAMMixLib.data.readers.patient import PatientSlices
from SAMMixLib.errors import SAMMixError


def labels_beside(scan: PatientSlices) -> tuple[np.ndarray, np.ndarray]:
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
