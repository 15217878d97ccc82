"""What an experiment compares, on which patients and slices, as data: see the JSON files in ``protocols/``.

A protocol is written before its test patients are looked at. Its cells are (row, number of labelled slices, seed).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from SAMMixLib.config import Config
from SAMMixLib.data.readers import patients_in
from SAMMixLib.data.slices import SliceDataset, split_patients
from SAMMixLib.data.spec import DatasetSpec
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import read_json

FOLDER = Path(__file__).parent / "protocols"
SAM_METHODS = ("sam_mix", "sam_pp")
PARTS = ("train", "validation", "test")


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
    source: DatasetSpec
    split: dict[str, Any]  # patients of each part, or how many and a seed
    middle: dict[str, float]  # share of each scan's slices around its centre, to train on and to test on
    cross_domain: tuple[DatasetSpec, ...]
    config: Config
    budget: dict[str, Any]  # {"seconds": processor seconds of training steps} or {"epochs": passes}
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
        size, source = self.config.model.size, self.source.at(data_root)
        names = self._split(patients_in(source.path))
        train, validation = (
            replace(source, middle=self.middle["train"]).read(size, names[part]) for part in ("train", "validation")
        )
        same = set(names["test"]) == set(names["validation"])  # of a protocol that chooses, and never sees the others
        kind = "validation" if same else "test"
        tests = {f"{source.name} {kind}": replace(source, middle=self.middle["test"]).read(size, names["test"])}
        for other in self.cross_domain:
            tests[other.name] = replace(other.at(data_root), middle=self.middle["test"]).read(size)
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
        data = read_json(path)
        source, *cross = map(DatasetSpec.from_dict, (data["source"], *data["cross_domain"]))
        rows = tuple(Row(**_tuples(entry)) for entry in data["rows"])
        fields = {key: data[key] for key in ("name", "about", "split", "middle", "budget")}
        if len(fields["budget"]) != 1 or not {"seconds", "epochs"} > set(fields["budget"]):
            raise KeyError("budget is seconds or epochs")
        config = Config.from_dict(data["config"], str(path))
        return Protocol(source=source, cross_domain=tuple(cross), rows=rows, config=config, **fields)
    except OSError:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise SAMMixError(f"{name_or_file}: no such protocol; take {known}, or a JSON file like theirs") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SAMMixError(f"{path}: not a protocol ({error}); see {FOLDER / 'desk.json'}") from None


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
