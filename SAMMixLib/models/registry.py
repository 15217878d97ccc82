"""The bundles on this machine: the starter that ships, and those in the user's folder."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic, atomic_folder, unzip
from SAMMixLib.models.card import CARD, FILES, Bundle, open_bundle, verify_bundle
from SAMMixLib.paths import STARTER, models_folder, starter_folder


class NameRefused(SAMMixError):
    """Ask for another name: a model of this one exists, or no folder can have it."""

    def __init__(self, name: str, *, taken: bool) -> None:
        super().__init__(
            f"{name}: a model of this name exists; give it another name"
            if taken
            else f"{name!r}: not a usable model name; give it another name"
        )
        self.name, self.taken = name, taken


def find_model(name: str | Path) -> Path:
    """The folder of a bundle, by its name or by its path.

    Raises:
        SAMMixError: there is none; the message lists those that exist.
    """
    if (Path(name) / CARD).is_file():
        return Path(name)
    if str(name) == STARTER:
        return starter_folder()
    if (models_folder() / name / CARD).is_file():
        return models_folder() / name
    known = ", ".join(folder.name for folder in installed_models())
    raise SAMMixError(f"{name}: no model of this name or path; there are: {known or 'none'}")


def installed_models() -> list[Path]:
    """Every bundle that :func:`find_model` finds by name, the starter first."""
    own = sorted(card.parent for card in models_folder().glob(f"*/{CARD}"))
    return [folder for folder in (starter_folder(), *own) if (folder / CARD).is_file() and folder.name[0] != "."]


def remove_model(name: str) -> Path:
    """Delete a bundle of the user's; the starter stays.

    Raises:
        SAMMixError: no such bundle, or it is the starter or lies elsewhere.
    """
    folder = find_model(name)
    if folder.parent != models_folder():
        raise SAMMixError(f"{name}: only models in {models_folder()} can be removed")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be removed ({error.strerror})") from None
    return folder


def import_model(source: Path, name: str | None = None) -> Bundle:
    """Copy a bundle (a folder, or a zip file of one) into the user's folder, checked before it shows there.

    Raises:
        NameRefused: a model of this name exists, or nothing can have it.
        SAMMixError: no bundle, or a damaged one.
    """
    if not source.exists():
        raise SAMMixError(f"{source}: no such file or folder")
    try:
        models_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=models_folder()) as unpacked:
            found = source if source.is_dir() else _unzip(source, Path(unpacked))
            target = _free_place(name or _checked(found).name)
            with atomic_folder(target) as beside:
                shutil.copytree(found, beside, dirs_exist_ok=True)
                # From now on the model goes by this name everywhere; the card itself has no hash.
                card = _checked(beside).card | {"name": target.name}
                (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        return open_bundle(target)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or "copying failed: no space, or no permission"
        raise SAMMixError(f"{models_folder()}: cannot be written ({reason}); choose a place with SAMMIX_HOME") from None


def _checked(folder: Path) -> Bundle:
    if not (folder / CARD).is_file():
        raise SAMMixError(f"{folder}: no model bundle ({CARD} is missing)")
    bundle = open_bundle(folder)
    verify_bundle(bundle)
    return bundle


def _free_place(name: str) -> Path:
    """The folder of a model that is not there yet."""
    target = models_folder() / name
    if target.parent != models_folder() or target.name != name or name.startswith("."):
        raise NameRefused(name, taken=False)
    if target.exists() or name == STARTER:
        raise NameRefused(name, taken=True)
    return target


def export_model(name: str, target: Path) -> Path:
    """Write a bundle as one zip file, which :func:`import_model` reads on another machine; checked first.

    Raises:
        SAMMixError: no such bundle, a damaged one, or the file cannot be written.
    """
    bundle = open_bundle(find_model(name))
    verify_bundle(bundle)
    if target.suffix.lower() != ".zip":
        raise SAMMixError(f"{target}: a model is exported as a .zip file; give such a name")
    try:
        with atomic(target) as beside, zipfile.ZipFile(beside, "w") as archive:  # weights do not compress
            for name_inside in (CARD, *FILES):
                archive.write(bundle.folder / name_inside, f"{target.stem}/{name_inside}")
    except OSError as error:
        raise SAMMixError(f"{target}: cannot be written ({error.strerror}); choose another place") from None
    return target


def _unzip(source: Path, folder: Path) -> Path:
    """The folder in the archive that holds the card."""
    for _ in unzip(source, folder, "a model bundle"):
        pass
    cards = sorted(folder.rglob(CARD))
    if len(cards) != 1:
        raise SAMMixError(f"{source}: holds {len(cards)} model bundles; give a zip file of one")
    return cards[0].parent
