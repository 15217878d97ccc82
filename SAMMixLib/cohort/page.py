"""The page to review a cohort: ``index.html``, opened from the disk, with nothing but files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic
from SAMMixLib.reports.viewer import ASSETS, write_assets

PAGE, DATA = "index.html", "data.js"
SHOWN = (
    "scan", "patient", "study", "series", "description", "path", "status", "reason", "volume_ml", "first_slice",
    "last_slice", "slices", "mean_hu", "quality", "to_review", "review", "warnings", "seconds", "mask", "model",
    "device", "finished",
)  # fmt: skip


def write_page(rows: Iterable[dict[str, Any]], out: Path, viewer: bool, left_out: int = 0) -> Path:
    """Write the page for the rows of the table into the folder of the results; row by row, whatever their number.

    Args:
        viewer: whether the scans have files for the viewer.
        left_out: series that were not chosen, to be mentioned.

    Returns:
        the path of ``index.html``.

    Raises:
        SAMMixError: the files cannot be written.
    """
    assets = files("SAMMixLib.cohort") / "page_assets"
    try:
        write_assets(out, with_niivue=viewer)
        for name in ("page.js", "page.css"):
            _write(out / ASSETS / name, (assets / name).read_bytes())
        _write_data(rows, out / DATA, viewer, left_out)
        _write(out / PAGE, (assets / PAGE).read_bytes())
    except OSError as error:
        raise SAMMixError(f"{out / PAGE}: not written ({error.strerror}); free some disk space and run again") from None
    return out / PAGE


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as beside:
        beside.write_bytes(content)


def _write_data(rows: Iterable[dict[str, Any]], path: Path, viewer: bool, left_out: int) -> None:
    counts = {"done": 0, "failed": 0}
    with atomic(path) as beside, beside.open("w", encoding="ascii", newline="\n") as file:
        file.write(f"window.sammixCohort = {{columns: {json.dumps(SHOWN)}, viewer: {json.dumps(viewer)}, rows: [\n")
        for row in rows:
            counts[row["status"]] += 1
            file.write(f"{json.dumps([row[name] for name in SHOWN])},\n")
        words = f"{counts['done']} scans segmented, {counts['failed']} failed"
        if left_out:
            words += f"; {left_out} series left out, see left_out.csv"
        file.write(f"], summary: {json.dumps(words)}}};\n")
