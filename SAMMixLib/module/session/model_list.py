"""The models on this computer as the module lists them; a damaged one is listed too, so that it can be deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.card import CARD, open_bundle, verify_bundle
from SAMMixLib.models.registry import (
    NameRefused,
    export_model,
    find_model,
    import_model,
    installed_models,
    remove_model,
)
from SAMMixLib.module import texts
from SAMMixLib.module.session.comparing import Comparison
from SAMMixLib.module.session.errors import attempt
from SAMMixLib.module.session.segment_view import Look
from SAMMixLib.module.session.settings import Settings
from SAMMixLib.paths import models_folder

COLUMNS = ("Model", "Trained from", "Dice before", "Dice after")
SHIPPED = "It came with the extension, and stays with it."


@dataclass(frozen=True)
class Row:
    """One model, in the words of the table."""

    name: str
    cells: tuple[str, ...]  # as COLUMNS
    details: str  # size, labelled slices, purpose, licence, provenance
    usable: bool
    removable: bool
    parent: str = ""  # the model that it was trained from, where that is on this computer


class ModelList:
    """The tab Models without its widgets: what is listed, what is selected, and what the buttons do.

    Every method that a button calls leaves what to tell the user in :attr:`message`, or in :attr:`error` where it
    failed, and the list as it is then. Only :meth:`import_` raises, where another name has to be asked for.

    Args:
        ask: puts a question to the user; whether the answer is yes.

    Attributes:
        rows: every model, the starter first.
        selected: index of the row that the buttons act on.
        changes: how often `rows` has changed.
    """

    def __init__(self, settings: Settings, ask: Callable[[str], bool]):
        self._settings, self._ask = settings, ask
        self._known = ""  # the chosen model when the list was made
        self.rows: list[Row] = []
        self.selected = self.changes = 0
        self.message = self.error = ""
        self.refresh()

    @property
    def row(self) -> Row:
        return self.rows[self.selected]

    @property
    def chosen(self) -> str:
        """The model that segments."""
        return self._settings.model

    @property
    def usable(self) -> list[str]:
        """The models that can be chosen to segment, or to train from."""
        return [row.name for row in self.rows if row.usable]

    def cells(self, row: Row) -> tuple[str, ...]:
        """A row as the table shows it: the model that segments is marked."""
        name, *others = row.cells
        return (f"{name} (in use)" if row.name == self.chosen else name, *others)

    def refresh(self) -> None:
        """List the models that are on this computer now; the selection stays with its model. One that is gone, or
        damaged, does not stay the chosen one.
        """
        name = self.row.name if self.rows else ""
        self.rows = rows()
        self.selected = next((n for n, row in enumerate(self.rows) if row.name == name), 0)
        self.changes += 1
        if self.usable and self.chosen not in self.usable:
            self.choose(self.usable[0])
        self._known = self.chosen

    def follow(self) -> None:
        """List anew where somebody else has chosen a model: it may be one that was just trained."""
        if self._known != self.chosen:
            self.refresh()

    def select(self, index: int) -> None:
        """The user chose another row; what was said of the one before goes. A table that is being filled may say -1."""
        self.selected = min(max(index, 0), len(self.rows) - 1)
        self.message = self.error = ""

    def choose(self, name: str) -> None:
        """Segment with this model from now on."""
        self._settings.model = name

    def use_parent(self) -> None:
        """Roll back: segment with the model that the selected one was trained from."""
        self.choose(self.row.parent)
        self.message, self.error = f"From now on, {self.row.parent} segments.", ""

    def verify(self) -> None:
        """Compare every file of the selected model with its hash."""
        self.message, self.error = verify(self.row.name), ""

    def delete(self) -> None:
        """Delete the selected model, after a question."""
        name = self.row.name
        if self._ask(f"Delete the model {name} from this computer?"):
            self._change(lambda: remove_model(name), f"{name} is deleted.")

    def import_(self, source: Path, name: str | None = None) -> None:
        """Copy a model, a zip file or the card in its folder, among the user's; under a name of its own, or this one.

        Raises:
            NameRefused: ask for another name, and call it again with that.

        Example:
            >>> def on_import(models, path, ask_for_name):
            ...     try:
            ...         models.import_(path)
            ...     except NameRefused as refused:
            ...         if name := ask_for_name(str(refused), refused.name):
            ...             models.import_(path, name)
        """
        folder = source.parent if source.name == CARD else source
        refused: list[NameRefused] = []
        imported: list[str] = []

        def bring_in() -> None:
            try:
                imported.append(import_model(folder, name).name)
            except NameRefused as error:
                refused.append(error)
            else:
                self.message = f"{imported[0]} is among your models."

        self._change(bring_in)
        for name_ in imported:
            self.selected = [row.name for row in self.rows].index(name_)
        if refused:
            raise refused[0]

    def export(self, target: Path) -> None:
        """Write the selected model as one zip file."""
        self._change(lambda: export_model(self.row.name, target), f"Wrote {target.name}.")

    def _change(self, change: Callable[[], object], done: str = "") -> None:
        self.message = ""
        self.error = attempt(change, str(models_folder()))
        if done and not self.error:
            self.message = done
        self.refresh()


def look(models: ModelList, comparison: Comparison) -> Look:
    """The tab's state, of the widgets of the ``.ui`` file."""
    row = models.row
    return {
        "modelLabel": {"text": row.details},
        "verifyLabel": {"text": texts.sentence(models.error) or models.message or ("" if row.removable else SHIPPED)},
        "deleteModelButton": {"enabled": row.removable},
        "exportModelButton": {"enabled": row.usable},
        "useParentButton": {"visible": bool(row.parent)},
        "compareModelButton": {
            "enabled": row.usable or comparison.running,
            "text": "Cancel" if comparison.running else "Compare on this scan",
        },
        "compareLabel": {"text": comparison.text, "visible": bool(comparison.text)},
    }


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
    name, training = folder.name if removable else bundle.name, bundle.card["training"]
    parent = training.get("parent") or {}
    scores = ["" if dice is None else texts.dice(dice) for dice in (training.get("before"), bundle.dice)]
    return Row(
        name,
        (name, parent.get("name", ""), *scores),
        _details(bundle.card, bundle.bytes),
        True,
        removable,
        _known(parent.get("name", ""), parent.get("sha256")),
    )


def _details(card: dict, size: int) -> str:
    provenance = "".join(f"\n\u2022 {each}" for each in card.get("provenance", []))
    training = card["training"]
    history = []
    if parent := training.get("parent"):
        history = [f"Trained from {parent['name']}" + (f" on {training['date']}" if training.get("date") else "")]
        if training.get("before") is not None:
            before, after = texts.dice(training["before"]), texts.dice(training["after"])
            history.append(f"Dice on slices kept aside: {before} before, {after} after")
        if training.get("data"):
            history.append(f"Data: {training['data']}")
    if training.get("labelled_slices") is not None:
        history.append(f"Labelled slices: {training['labelled_slices']}")
    lines = [f"Purpose: {card['purpose']}", f"Licence: {card['license']}", f"Base weights: {card['base']['name']}"]
    lines.append(f"Size: {size / 1e6:.1f} MB")
    return "\n".join([*history, *lines, *(["Trained on:"] if provenance else [])]) + provenance


def _known(name: str, sha256: dict[str, str] | None) -> str:
    """The name, where the model of this name is still the one with these hashes; else nothing."""
    try:
        return name if name and open_bundle(find_model(name)).card["sha256"] == sha256 else ""
    except SAMMixError:
        return ""
