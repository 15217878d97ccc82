"""The table of a cohort: one row a scan, as Parquet and as CSV, whatever came of it."""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from SAMMixLib.cohort.records import DONE, MASKS
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic

PARQUET, TABLE, LEFT_OUT = "results.parquet", "results.csv", "left_out.csv"
ROWS_AT_ONCE = 500  # in memory; also a row group of the Parquet file
COLUMNS = {
    "scan": "string", "patient": "string", "study": "string", "series": "string", "description": "string",
    "path": "string", "status": "string", "reason": "string", "volume_ml": "double", "first_slice": "int32",
    "last_slice": "int32", "slices": "int32", "mean_hu": "double", "quality": "double", "to_review": "int32",
    "review": "string", "warnings": "string", "seconds": "double", "mask": "string", "structure": "string",
    "model": "string", "model_hash": "string", "input_sha256": "string", "device": "string", "dtype": "string",
    "worker": "string", "tries": "int32", "sammix": "string", "torch": "string", "finished": "string",
}  # fmt: skip


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one flat row; several values in one text are parted by semicolons."""
    row = {column: record.get(column) for column in COLUMNS}
    masks = [output for output in record["outputs"] if output.startswith(f"{MASKS}/")]
    review = record.get("review") or []
    done = record["status"] == DONE
    return row | {
        "to_review": len(review) if done else None,
        "review": ";".join(map(str, review)),
        "warnings": "; ".join(record["warnings"]),
        "mask": masks[0] if masks else None,
        "input_sha256": record["input"]["sha256"],
        "patient": record.get("patient") or (record["scan"].split("/")[0]),
        "sammix": record["versions"]["sammix"],
        "torch": record["versions"].get("torch"),
    }


class Rows:
    """Rows on disk until the table is written, in the order of the cohort whatever the order they came in.

    Each method raises SAMMixError where the disk takes no more.
    """

    def __init__(self, spool: Path) -> None:
        self._path = spool
        with self._writing():
            self._file = spool.open("w+b")
        self._starts = array("q")  # eight bytes a scan; -1: not come yet

    def add(self, number: int, row: dict[str, Any]) -> None:
        while len(self._starts) <= number:
            self._starts.append(-1)
        with self._writing():
            self._starts[number] = self._file.seek(0, 2)
            self._file.write(json.dumps(row).encode() + b"\n")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in self._starts:
            if start >= 0:
                with self._writing():
                    self._file.seek(start)
                yield json.loads(self._file.readline())

    def begin_again(self, rows: Iterable[dict[str, Any]]) -> None:
        """Forget the rows so far and take these."""
        with self._writing():
            self._file.truncate(0)
        self._starts = array("q")
        for number, row in enumerate(rows):
            self.add(number, row)

    def remove(self) -> None:
        """What was not written yet is lost, and nobody needs it."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SAMMixError(
                f"{self._path}: not written ({error.strerror}); free some disk space and run again"
            ) from None


def write_tables(rows: Iterable[dict[str, Any]], out: Path) -> None:
    """Write ``results.parquet`` and ``results.csv`` in one pass, each whole or not at all.

    Raises:
        SAMMixError: the disk does not take them.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([(column, pa.type_for_alias(kind)) for column, kind in COLUMNS.items()])
    try:
        with (
            atomic(out / PARQUET) as parquet,
            atomic(out / TABLE) as table,
            table.open("w", newline="", encoding="utf-8") as file,
            ParquetWriter(parquet, schema) as writer,
        ):
            lines = csv.DictWriter(file, list(COLUMNS))
            lines.writeheader()
            for part in _parts(rows):
                lines.writerows(part)
                writer.write_table(pa.Table.from_pylist(part, schema))
    except (OSError, pa.ArrowException) as error:
        raise SAMMixError(f"{out}: the table cannot be written ({error}); free some disk space and run again") from None


def write_left_out(rows: Iterable[dict[str, Any]], columns: Sequence[str], out: Path) -> int:
    """Write ``left_out.csv``, a row for each series that was not chosen; how many there are.

    Raises:
        SAMMixError: the disk does not take it.
    """
    count = 0
    try:
        with atomic(out / LEFT_OUT) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, list(columns))
            lines.writeheader()
            for row in rows:
                lines.writerow(row)
                count += 1
    except OSError as error:
        raise SAMMixError(f"{out / LEFT_OUT}: not written ({error.strerror}); free some disk space") from None
    return count


def _parts(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == ROWS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part
