"""The models on this computer as the module lists them; a damaged one is listed too, so that it can be deleted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from SAMMixLib.bundle import open_bundle, verify_bundle
from SAMMixLib.errors import SAMMixError
from SAMMixLib.models import find_model, model_folders, user_folder

COLUMNS = ("Model", "Size", "Labelled slices", "Validation Dice (CAM)")


@dataclass(frozen=True)
class Row:
    """One model, in the words of the table."""

    name: str
    cells: tuple[str, ...]  # as COLUMNS
    details: str  # purpose, licence, provenance
    usable: bool
    removable: bool


def rows() -> list[Row]:
    """Every model, the starter first."""
    return [_row(folder) for folder in model_folders()]


def verify(name: str) -> str:
    """Compare every file of a model with its hash; gives back what to tell the user."""
    try:
        verify_bundle(open_bundle(find_model(name)))
    except SAMMixError as error:
        return f"{error}"
    return f"{name}: every file is as it was written."


def _row(folder: Path) -> Row:
    removable = folder.parent == user_folder()
    try:
        bundle = open_bundle(folder)
    except SAMMixError as error:
        return Row(folder.name, (folder.name, "", "", "damaged"), str(error), False, removable)
    training = bundle.card["training"]
    dice, labelled = training.get("validation_dice"), training.get("labelled_slices")
    cells = (
        folder.name if removable else bundle.name,
        f"{bundle.bytes / 1e6:.1f} MB",
        "" if labelled is None else f"{labelled}",
        "" if dice is None else f"{dice:.3f}",
    )
    return Row(cells[0], cells, _details(bundle.card), True, removable)


def _details(card: dict) -> str:
    provenance = "".join(f"\n\u2022 {each}" for each in card.get("provenance", []))
    lines = [f"Purpose: {card['purpose']}", f"Licence: {card['license']}", f"Base weights: {card['base']['name']}"]
    return "\n".join([*lines, *(["Trained on:"] if provenance else [])]) + provenance
