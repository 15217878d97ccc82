"""What a model says of itself: the card of a bundle, read and checked without torch, so also in Slicer's own process.

A bundle is a folder:

===========================  ==========================================================================
``sammix.json``              schema, config, structure (the liver where there is none), base weights, training record,
                             licence, hash of every file
``classifier.safetensors``   the classifier
``adapter/``                 LoRA in peft's own format
``decoder.safetensors``      the mask decoder
===========================  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SAMMixLib.config import Config
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import read_json, sha256_of
from SAMMixLib.structure import LIVER, Structure

SCHEMA = 1
CARD = "sammix.json"
CLASSIFIER = "classifier.safetensors"
DECODER = "decoder.safetensors"
ADAPTER = "adapter/adapter_model.safetensors"
ADAPTER_CONFIG = "adapter/adapter_config.json"
FILES = (CLASSIFIER, DECODER, ADAPTER, ADAPTER_CONFIG)


def dice_text(dice: float) -> str:
    """A Dice as it is written wherever a model is spoken of: in tables, verdicts and curves.

    >>> dice_text(0.93749)
    '0.937'
    """
    return f"{dice:.3f}"


@dataclass(frozen=True)
class Bundle:
    """A bundle's card, read and checked, with its tensors still on disk."""

    folder: Path
    card: dict[str, Any]

    @property
    def name(self) -> str:
        return self.card["name"]

    @property
    def config(self) -> Config:
        return Config.from_dict(self.card["config"], f"{self.folder / CARD}: config")

    @property
    def structure(self) -> Structure:
        """What the model segments."""
        data = self.card.get("structure")
        return LIVER if data is None else Structure.from_dict(data, f"{self.folder / CARD}: structure")

    @property
    def dice(self) -> float | None:
        """The Dice that is told of the model wherever one is: what ``sammix evaluate`` gave, where that stands in its
        card; else that of the slices that its own training kept aside. None where nothing was scored.
        """
        training = self.card["training"]
        scores = (training.get("evaluated", {}).get("dice"), training.get("after"), training.get("validation_dice"))
        return next((score for score in scores if score is not None), None)

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def open_bundle(folder: str | Path) -> Bundle:
    """Read and check a bundle's card.

    Raises:
        SAMMixError: no bundle there, a newer schema, or a card that does not hold what it should.
    """
    folder = Path(folder)
    try:
        card = read_json(folder / CARD)
    except OSError:
        raise SAMMixError(f"{folder}: no model bundle here ({CARD} is missing); see: sammix models list") from None
    except ValueError as error:
        raise SAMMixError(f"{folder / CARD}: damaged ({error}); import the bundle again") from None
    schema = card.get("schema") if isinstance(card, dict) else None
    if not isinstance(schema, int):
        raise SAMMixError(f"{folder / CARD}: no SAMMix model card; import the bundle again")
    if schema > SCHEMA:
        raise SAMMixError(f"{folder}: bundle schema {schema} is newer than this SAMMix knows ({SCHEMA}); update SAMMix")
    kinds = {"name": str, "base": dict, "config": dict, "training": dict, "sha256": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(card.get(key), kind)]
    if wrong or not isinstance(card["base"].get("name"), str):
        raise SAMMixError(f"{folder / CARD}: {', '.join(wrong) or 'base'} missing or damaged; import the bundle again")
    bundle = Bundle(folder, card)
    _ = bundle.config, bundle.structure  # unreadable ones are refused here, not at the first use
    return bundle


def verify_bundle(bundle: Bundle) -> None:
    """Check every file against its hash.

    Raises:
        SAMMixError: a file is missing or differs.
    """
    for name in FILES:
        if not (bundle.folder / name).is_file():
            raise SAMMixError(f"{bundle.folder / name}: is missing; remove the bundle and import it again")
        if sha256_of(bundle.folder / name) != bundle.card["sha256"].get(name):
            raise SAMMixError(
                f"{bundle.folder / name}: changed since it was written; remove the bundle and import it again"
            )
