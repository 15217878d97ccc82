"""Which scans a cohort is made of: a folder of them, a DICOM export in any layout, or a CSV or Parquet table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from SAMMixLib.cohort.names import KnownNames
from SAMMixLib.cohort.pacs import WITHOUT_UID, Export, Series
from SAMMixLib.errors import SAMMixError

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Entry:
    """One scan of the cohort, before anybody has looked into it.

    ``name`` is its place in the mirrored tree, without a suffix and unlike any other's. ``files`` are those of a DICOM
    series found in an export; a scan without them is read from ``path`` (and ``series``) as any other.
    """

    name: str
    path: str
    patient: str = ""
    study: str = ""
    series: str = ""
    description: str = ""
    files: tuple[str, ...] = ()

    def sources(self) -> list[Path]:
        """The files that its voxels come from: of a header with detached voxels the files beside it, too.

        Raises:
            SAMMixError: there is nothing at its path.
        """
        if self.files:
            return [Path(file) for file in self.files]
        path = Path(self.path)
        if path.is_dir():
            return sorted(file for file in path.rglob("*") if file.is_file())
        if not self.path or not path.exists():
            raise SAMMixError(f"{self.path or self.name}: no such file or folder")
        if path.suffix.lower() in (".mhd", ".nhdr"):
            return sorted(path.parent.glob(f"{path.stem}.*"))
        return [path]


def scans_of(source: Path, leave: Path, export: Export) -> Iterator[Entry]:
    """The scans of a folder or a table, one after the other; none is kept in memory.

    Volumes of a folder come first, as they are found. DICOM files are noted in `export` on the way, and follow as the
    one series chosen of each study.

    Args:
        leave: the folder of the results, which is no input although it may lie inside `source`.

    Raises:
        SAMMixError: no such folder or table, or a table without a column ``path``.
    """
    if source.is_dir():
        found = _in_folder(source, leave, export)
    elif source.suffix.lower() == ".csv":
        found = _in_rows(source, _csv_rows(source))
    elif source.suffix.lower() == ".parquet":
        found = _in_rows(source, _parquet_rows(source))
    else:
        raise SAMMixError(f"{source}: no folder, and no table ({', '.join(TABLES)}) of scans")
    return _named_once(found)


def count_scans(source: Path, leave: Path) -> int | None:
    """How many scans there will be, where that is cheap to say: None for a folder with DICOM files in it."""
    if source.suffix.lower() == ".parquet":
        from pyarrow.parquet import ParquetFile

        return ParquetFile(source).metadata.num_rows
    if source.is_file():
        return sum(1 for _ in _csv_rows(source))
    volumes = 0
    for file in files_under(source, leave):
        if _suffix(file.name) is None:
            return None
        volumes += 1
    return volumes


def files_under(folder: Path, leave: Path) -> Iterator[os.DirEntry]:
    """All files below a folder, sorted within each, but hidden ones and those in the folder to leave."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be read ({error.strerror}); check the path") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if Path(entry.path).resolve() != leave.resolve():
                yield from files_under(Path(entry.path), leave)
        else:
            yield entry


def _in_folder(folder: Path, leave: Path, export: Export) -> Iterator[Entry]:
    for file in files_under(folder, leave):
        suffix = _suffix(file.name)
        if suffix is None:
            export.note(file)
            continue
        place = Path(file.path).relative_to(folder).as_posix()
        patient = Path(place).parts[0] if "/" in place else file.name[: -len(suffix)]
        yield Entry(place[: -len(suffix)], file.path, patient)
    for series in export.chosen():
        yield _of_series(series, folder)


def _of_series(series: Series, folder: Path) -> Entry:
    """A series alone in its folder takes the folder's name; else its own number and the end of its UID's hash."""
    place = Path(series.folder).relative_to(folder).as_posix()
    name = place if series.alone and place != "." else f"{place}/series-{series.number or 0}-{series.short}"
    name = name.removeprefix("./")
    return Entry(
        name=name,
        path=series.folder,
        patient=series.patient or name.split("/")[0],
        study="" if series.study.startswith(WITHOUT_UID) else series.study,
        series=series.known_uid,
        description=series.description,
        files=tuple(series.files),
    )


def _in_rows(table: Path, rows: Iterable[dict[str, str]]) -> Iterator[Entry]:
    for number, row in enumerate(rows, 1):
        given = row.get("path", "")
        path = os.path.normpath(table.parent / given) if given else ""
        stem = given[: -len(_suffix(given) or "")] if _suffix(given) else given
        name = row.get("name") or stem or f"row-{number}"
        yield Entry(
            name=_inside(name),
            path=path,
            patient=row.get("patient", ""),
            study=row.get("study", ""),
            series=row.get("series", ""),
            description=row.get("description", ""),
        )


def _csv_rows(table: Path) -> Iterator[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(table, reader.fieldnames or ())
            for row in reader:
                yield {key: (value or "").strip() for key, value in row.items() if key and not isinstance(value, list)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SAMMixError(f"{table}: cannot be read as CSV ({error}); write it as UTF-8 with commas") from None


def _parquet_rows(table: Path) -> Iterator[dict[str, str]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(table)
        _check_columns(table, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                yield {key: "" if value is None else str(value) for key, value in row.items()}
    except (OSError, pyarrow.ArrowException) as error:
        raise SAMMixError(f"{table}: cannot be read as Parquet ({error})") from None


def _check_columns(table: Path, columns: Iterable[str]) -> None:
    if "path" not in columns:
        raise SAMMixError(f"{table}: no column 'path'; it has {', '.join(columns) or 'none'}")


def _inside(name: str) -> str:
    """A name that stays in the mirrored tree, whatever path it was made from."""
    parts = [part for part in Path(name).parts if part not in ("..", ".", Path(name).anchor)]
    return "/".join(parts) or "scan"


def _named_once(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same scans; where two have one name, the later one gets a number."""
    taken = KnownNames()
    for entry in entries:
        name, count = entry.name, 1
        while not taken.add(name.lower()):  # some disks know no capitals
            count += 1
            name = f"{entry.name}-{count}"
        yield entry if name == entry.name else replace(entry, name=name)


def _suffix(name: str) -> str | None:
    return next((suffix for suffix in VOLUMES if name.lower().endswith(suffix)), None)
