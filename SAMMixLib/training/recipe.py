"""A training run as data: which slices, which patients validate, which masks count, which config.

A recipe is a JSON file such as ``Resources/recipes/starter.json``; every run folder holds its own, so that a killed run
can be resumed with nothing but its folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from SAMMixLib.config import Config
from SAMMixLib.data.slices import SliceDataset, split_patients
from SAMMixLib.data.spec import DatasetSpec
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import read_json, write_text

FILE = "recipe.json"


@dataclass
class Recipe:
    """All that a training run needs.

    `validation` names the patients held out; without names a fifth of the patients is drawn by the seed. `labelled`
    lists (patient, slice) of the masks to use; without a list they are drawn by the seed. `same` gives the other names
    of patients who are in two sources: whoever is held out is held out of both.
    """

    sources: list[DatasetSpec]
    config: Config
    validation: list[str] = field(default_factory=list)
    labelled: list[tuple[str, int]] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    def read_all(self) -> SliceDataset:
        """The slices of all sources.

        Raises:
            SAMMixError: a source cannot be read.
        """
        return SliceDataset.concatenate([source.read(self.config.model.size) for source in self.sources])

    def read(self) -> tuple[SliceDataset, SliceDataset, np.ndarray | None]:
        """Training set, validation set, and the positions of the listed labelled slices.

        Raises:
            SAMMixError: a source cannot be read, or a named patient or slice is not in it.
        """
        data = self.read_all()
        names = self.validation
        if not names:
            shares, seed = {"train": 0.8, "validation": 0.2}, self.config.training.seed
            names = split_patients(self._persons(data.patient_names()), shares, seed)["validation"]
        persons = self._persons(data.patients)
        unknown = sorted(set(self._persons(names)) - set(persons))
        if unknown:
            raise SAMMixError(f"validation patient {unknown[0]} is not in the data; check the names")
        held_out = np.isin(persons, self._persons(names))
        train = data.select(~held_out)
        return train, data.select(held_out), None if self.labelled is None else _positions(train, self.labelled)

    def save(self, folder: Path) -> None:
        """Keep the recipe in the run folder, with absolute paths."""
        write_text(folder / FILE, self._text())

    def claim(self, folder: Path) -> None:
        """Make the folder of this recipe, or find that it is this very recipe's.

        Raises:
            SAMMixError: it holds something else, or cannot be written.
        """
        kept = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                self.save(folder)
            elif not kept.is_file() or kept.read_text(encoding="utf-8") != self._text():
                raise SAMMixError(f"{folder}: holds something else than this recipe; choose another folder")
        except OSError as error:
            raise SAMMixError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None

    def _persons(self, names: Iterable[str]) -> list[str]:
        """The one name that counts of each."""
        return [self.same.get(name, name) for name in names]

    def _text(self) -> str:
        sources = [dataclasses.asdict(source) | {"path": str(Path(source.path).resolve())} for source in self.sources]
        return json.dumps(dataclasses.asdict(self) | {"sources": sources}, indent=1) + "\n"


def read_recipe(path: Path, data_root: Path | None = None) -> Recipe:
    """The recipe in a JSON file; relative source paths start at `data_root`.

    Raises:
        SAMMixError: the file is missing or is no recipe.
    """
    try:
        data = read_json(path)
        sources = [DatasetSpec.from_dict(source).at(data_root or Path()) for source in data["sources"]]
        labelled = data.get("labelled")
        listed = None if labelled is None else [(str(patient), int(index)) for patient, index in labelled]
        validation = list(map(str, data.get("validation", [])))
        record, same = dict(data.get("record", {})), dict(data.get("same", {}))
    except OSError as error:
        raise SAMMixError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise SAMMixError(f"{path}: not a training recipe ({error})") from None
    config = Config.from_dict(data.get("config", {}), str(path))
    return Recipe(sources, config, validation, listed, record, same)


def _positions(data: SliceDataset, labelled: list[tuple[str, int]]) -> np.ndarray:
    place = {(str(p), int(i)): n for n, (p, i) in enumerate(zip(data.patients, data.indices, strict=True))}
    for patient, index in labelled:
        if (patient, index) not in place:
            raise SAMMixError(f"labelled slice {index} of patient {patient} is not in the training set; check the list")
        if not data.has_mask[place[patient, index]]:
            raise SAMMixError(f"slice {index} of patient {patient} is listed as labelled but has no mask")
    return np.array(sorted(place[entry] for entry in labelled))
