"""What an experiment compares, on which patients and slices, as data: see the JSON files in ``protocols/``.

A protocol is written before its test patients are looked at. Its cells are (row, number of labelled slices, seed).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from SAMMixLib.config import Config
from SAMMixLib.data.readers import patients_in
from SAMMixLib.data.slices import SliceDataset, read_slices, split_patients
from SAMMixLib.errors import SAMMixError

FOLDER = Path(__file__).parent / "protocols"
SAM_METHODS = ("sam_mix", "sam_pp")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """One slice data set, see :func:`SAMMixLib.data.slices.read_slices`.

    Args:
        patients: those to take, by name, or how many, drawn by the seed 0; None takes all.
    """

    name: str
    path: str
    hu_range: tuple[float, float] = (-40.0, 160.0)
    patients: tuple[str, ...] | int | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        method: ``sam_mix``, ``sam_pp``, or a network of :mod:`SAMMixLib.experiments.baselines`.
        labels: numbers of labelled slices, one line of the table each; None is every mask there is.
        changes: entries of the protocol's config that differ, as nested dicts.
    """

    name: str
    method: str
    labels: tuple[int | None, ...]
    seeds: tuple[int, ...]
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One training run."""

    row: Row
    labelled: int | None
    seed: int

    @property
    def name(self) -> str:
        """The row's name as the paper writes it, such as SAM-Mix-50."""
        return self.row.name if self.labelled is None else f"{self.row.name}-{self.labelled}"

    @property
    def key(self) -> str:
        """The name of the cell's folder."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name} seed {self.seed}".lower())


@dataclass(frozen=True)
class Protocol:
    """Which patients train, validate and test, which slices count, which rows are compared, under which budget."""

    name: str
    about: str
    source: Source
    split: dict[str, Any]  # patients of each part, or how many and a seed
    middle: dict[str, float]  # share of each scan's slices around its centre, to train on and to test on
    cross_domain: tuple[Source, ...]
    config: Config
    budget: dict[str, float]  # {"seconds": processor seconds of training steps} or {"epochs": passes}
    rows: tuple[Row, ...]

    def cells(self) -> list[Cell]:
        """Every run, seed by seed, so that the table fills with all rows first."""
        cells = [Cell(row, labelled, seed) for row in self.rows for labelled in row.labels for seed in row.seeds]
        return sorted(cells, key=lambda cell: cell.seed)

    def config_of(self, cell: Cell) -> Config:
        """The config of a cell: the protocol's, with the row's changes, the labelled slices and the seed."""
        parts = self.config.to_dict()
        for part, values in cell.row.changes.items():
            parts[part] |= values
        parts["training"] |= {"labelled_slices": cell.labelled, "seed": cell.seed}
        return Config.from_dict(parts, f"{self.name}: {cell.key}")

    def read(self, data_root: Path) -> tuple[SliceDataset, SliceDataset, dict[str, SliceDataset]]:
        """Training set, validation set, and the test sets by name.

        Raises:
            SAMMixError: data are missing, or the split names patients that they lack.
        """
        names = self._split(patients_in(data_root / self.source.path))

        def part(source: Source, middle: str, patients: Sequence[str] | int | None) -> SliceDataset:
            path = data_root / source.path
            if isinstance(patients, int):
                patients = split_patients(patients_in(path), {"taken": patients}, seed=0)["taken"]
            return read_slices(path, self.config.model.size, source.hu_range, self.middle[middle], patients)

        train, validation = (part(self.source, "train", names[p]) for p in PARTS[:2])
        same = set(names["test"]) == set(names["validation"])  # of a protocol that chooses, and never sees the others
        kind = "validation" if same else "test"
        tests = {f"{self.source.name} {kind}": part(self.source, "test", names["test"])}
        tests |= {source.name: part(source, "test", source.patients) for source in self.cross_domain}
        return train, validation, tests

    def _split(self, patients: list[str]) -> dict[str, list[str]]:
        if "seed" in self.split:
            return split_patients(patients, {part: self.split[part] for part in PARTS}, self.split["seed"])
        unknown = sorted({name for part in PARTS for name in self.split[part]} - set(patients))
        if unknown:
            raise SAMMixError(f"{self.source.path}: patient {unknown[0]} of protocol {self.name} is not there")
        return self.split


def read_protocol(name_or_file: str) -> Protocol:
    """A protocol by its name (``desk``, ``paper``) or from a JSON file.

    Raises:
        SAMMixError: there is none, or it does not hold what it should.
    """
    path = FOLDER / f"{name_or_file}.json"
    path = path if path.is_file() else Path(name_or_file)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        source, *cross = (Source(**_tuples(entry)) for entry in (data["source"], *data["cross_domain"]))
        rows = tuple(Row(**_tuples(entry)) for entry in data["rows"])
        fields = {key: data[key] for key in ("name", "about", "split", "middle", "budget")}
        if len(fields["budget"]) != 1 or not {"seconds", "epochs"} > set(fields["budget"]):
            raise KeyError("budget is seconds or epochs")
        config = Config.from_dict(data["config"], str(path))
        return Protocol(source=source, cross_domain=tuple(cross), rows=rows, config=config, **fields)
    except OSError:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise SAMMixError(f"{name_or_file}: no such protocol; take {known}, or a JSON file like theirs") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SAMMixError(f"{path}: not a protocol ({error}); see {FOLDER / 'desk.json'}") from None


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
