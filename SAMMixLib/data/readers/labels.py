"""``labels.csv``: image-level labels of slices without a mask."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from SAMMixLib.data.readers.patient import PatientSlices
from SAMMixLib.errors import SAMMixError

COLUMNS = ("patient", "slice", "label")


def labels_beside(scan: PatientSlices) -> tuple[np.ndarray, np.ndarray]:
    """For the slices of a scan without mask: whether ``labels.csv`` lists them, and their labels.

    Raises:
        SAMMixError: no such table, one that is none, or it does not list the patient.
    """
    folder = scan.file.parent
    table = next((f for f in (folder / "labels.csv", folder.parent / "labels.csv") if f.is_file()), None)
    if table is None:
        raise SAMMixError(f"{scan.file}: has no mask; add one, or a labels.csv with the columns patient, slice, label")
    known = {index: label for patient, index, label in _rows(table) if patient == scan.patient}
    if not known:
        raise SAMMixError(f"{table}: does not list patient {scan.patient}, who has no mask; add the slices' labels")
    listed = np.array([index in known for index in scan.indices.tolist()])
    return listed, np.array([bool(known.get(index, 0)) for index in scan.indices.tolist()])


def _rows(table: Path) -> list[tuple[str, int, int]]:
    """Patient, slice, label of every row, as spreadsheets write them: byte order mark, semicolons, 1.0, capitals."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        first = text.split("\n", 1)[0]
        mark = max(",;\t", key=first.count)
        rows = list(csv.reader(text.splitlines(), delimiter=mark))
        head = [name.strip().casefold() for name in rows[0]]
        places = [head.index(name) for name in COLUMNS]
        found = []
        for row in rows[1:]:
            if any(cell.strip() for cell in row):
                patient, index, label = (row[place].strip() for place in places)
                found.append((patient, _integer(index), _integer(label)))
        if any(label not in (0, 1) for _, _, label in found):
            raise ValueError("a label is neither 0 nor 1")
    except (IndexError, ValueError, OverflowError, OSError, csv.Error) as error:
        raise SAMMixError(f"{table}: not a table of patient, slice, label (0 or 1): {error}; correct it") from error
    return found


def _integer(text: str) -> int:
    value = float(text.replace(",", "."))
    if not value.is_integer():
        raise ValueError(f"{text} is no whole number")
    return int(value)
