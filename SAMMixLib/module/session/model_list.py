"""The models on this computer as the module lists them; a damaged one is listed too, so that it can be deleted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.card import Bundle, open_bundle, verify_bundle
from SAMMixLib.models.registry import find_model, installed_models
from SAMMixLib.module import texts
from SAMMixLib.paths import models_folder

COLUMNS = ("Model", "Trained from", "Dice before", "Dice after")


@dataclass(frozen=True)
class Row:
    """One model, in the words of the table."""

    name: str
    cells: tuple[str, ...]  # as COLUMNS
    details: str  # purpose, licence, provenance
    usable: bool
    removable: bool
    parent: str = ""  # the model that it was trained from, where that is on this computer


def rows() -> list[Row]:
    """Every model, the starter first."""
    return [_row(folder) for folder in installed_models()]


def verify(name: str) -> str:
    """Compare every file of a model with its hash; gives back what to tell the user."""
    try:
        verify_bundle(open_bundle(find_model(name)))
    except SAMMixError as error:
        return f"{error}"
    return f"{name}: every file is as it was written."


def _row(folder: Path) -> Row:
    removable = folder.parent == models_folder()
    try:
        bundle = open_bundle(folder)
    except SAMMixError as error:
        return Row(folder.name, (folder.name, "damaged", "", ""), str(error), False, removable)
    training = bundle.card["training"]
    parent = training.get("parent") or {}
    cells = (
        folder.name if removable else bundle.name,
        parent.get("name", ""),
        _dice(training.get("before")),
        _dice(training.get("after", training.get("validation_dice"))),
    )
    return Row(cells[0], cells, _details(bundle), True, removable, _known(parent.get("name", ""), parent.get("sha256")))


def _dice(value: float | None) -> str:
    return "" if value is None else texts.dice(value)


def _details(bundle: Bundle) -> str:
    card = bundle.card
    provenance = "".join(f"\n\u2022 {each}" for each in card.get("provenance", []))
    training = card["training"]
    history = []
    if parent := training.get("parent"):
        history = [f"Trained from {parent['name']}" + (f" on {training['date']}" if training.get("date") else "")]
        if training.get("before") is not None:
            before, after = texts.dice(training["before"]), texts.dice(training["after"])
            history.append(f"Dice on held-out slices: {before} before, {after} after")
        if training.get("data"):
            history.append(f"Data: {training['data']}")
    if (labelled := training.get("labelled_slices")) is not None:
        history.append(f"Labelled slices: {labelled}")
    lines = [
        f"Size: {bundle.bytes / 1e6:.1f} MB",
        f"Purpose: {card['purpose']}",
        f"Licence: {card['license']}",
        f"Base weights: {card['base']['name']}",
    ]
    return "\n".join([*history, *lines, *(["Trained on:"] if provenance else [])]) + provenance


def _known(name: str, sha256: dict[str, str] | None) -> str:
    """The name, where the model of this name is still the one with these hashes; else nothing."""
    try:
        return name if name and open_bundle(find_model(name)).card["sha256"] == sha256 else ""
    except SAMMixError:
        return ""
