"""The card of a training set: its name, and the structure that its masks show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import read_json
from SAMMixLib.structure import Structure

SCHEMA = 1
CARD = "training_set.json"


@dataclass(frozen=True)
class Card:
    name: str
    structure: Structure

    def write(self, folder: Path) -> None:
        card = {"schema": SCHEMA, "name": self.name, "structure": self.structure.to_dict()}
        (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card of the set in `folder`.

        Raises:
            SAMMixError: there is none, or it is damaged or written by a newer SAMMix.
        """
        file = folder / CARD
        try:
            card = read_json(file)
            schema, name, structure = card["schema"], card["name"], card["structure"]
        except OSError:
            raise SAMMixError(f"{folder}: no training set here ({CARD} is missing); choose another folder") from None
        except (ValueError, KeyError, TypeError) as error:
            raise SAMMixError(f"{file}: damaged ({error!r}); restore it from an export") from None
        if not isinstance(schema, int) or not isinstance(name, str):
            raise SAMMixError(f"{file}: damaged (schema or name); restore it from an export")
        if schema > SCHEMA:
            raise SAMMixError(f"{file}: schema {schema} is newer than this SAMMix knows ({SCHEMA}); update SAMMix")
        return cls(name, Structure.from_dict(structure, str(file)))
