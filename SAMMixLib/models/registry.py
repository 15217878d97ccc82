"""The bundles on this machine: the starter that ships, and those in the user's folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.bundle import CARD, FILES, Bundle, open_bundle, verify_bundle

STARTER = "starter"


def user_folder() -> Path:
    """Where the user's bundles live: ``$SAMMIX_HOME/models``, else the platform's place for application data."""
    if "SAMMIX_HOME" in os.environ:
        return Path(os.environ["SAMMIX_HOME"]) / "models"
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
    return base / "SAMMix" / "models"


def starter_folder() -> Path:
    """The starter bundle, which travels with the library."""
    return Path(__file__).resolve().parent / STARTER


def find_model(name: str | Path) -> Path:
    """The folder of a bundle, by its name or by its path.

    Raises:
        SAMMixError: there is none; the message lists those that exist.
    """
    if (Path(name) / CARD).is_file():
        return Path(name)
    if str(name) == STARTER:
        return starter_folder()
    if (user_folder() / name / CARD).is_file():
        return user_folder() / name
    known = ", ".join(folder.name for folder in model_folders())
    raise SAMMixError(f"{name}: no model of this name or path; there are: {known or 'none'}")


def model_folders() -> list[Path]:
    """Every bundle that :func:`find_model` finds by name, the starter first."""
    own = sorted(card.parent for card in user_folder().glob(f"*/{CARD}"))
    return [folder for folder in (starter_folder(), *own) if (folder / CARD).is_file() and folder.name[0] != "."]


def remove_model(name: str) -> Path:
    """Delete a bundle of the user's; the starter stays.

    Raises:
        SAMMixError: no such bundle, or it is the starter or lies elsewhere.
    """
    folder = find_model(name)
    if folder.parent != user_folder():
        raise SAMMixError(f"{name}: only models in {user_folder()} can be removed")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise SAMMixError(f"{folder}: cannot be removed ({error.strerror})") from None
    return folder


def import_model(source: Path, name: str | None = None) -> Bundle:
    """Copy a bundle (a folder, or a zip file of one) into the user's folder, checked before it shows there.

    Raises:
        SAMMixError: no bundle, a damaged one, or the name is taken.
    """
    if not source.exists():
        raise SAMMixError(f"{source}: no such file or folder")
    try:
        user_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=user_folder()) as beside:
            return open_bundle(_import_beside(source, Path(beside), name))
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or "copying failed: no space, or no permission"
        raise SAMMixError(f"{user_folder()}: cannot be written ({reason}); choose a place with SAMMIX_HOME") from None


def _import_beside(source: Path, beside: Path, name: str | None) -> Path:
    """Copy into `beside`, check there, then rename to the model's own folder."""
    copied = beside / "bundle"
    if source.is_dir():
        if not (source / CARD).is_file():
            raise SAMMixError(f"{source}: no model bundle ({CARD} is missing)")
        shutil.copytree(source, copied)
    else:
        copied = _unzip(source, copied)
    bundle = open_bundle(copied)
    verify_bundle(bundle)
    name = name or bundle.name
    target = user_folder() / name
    if target.parent != user_folder() or target.name != name or name.startswith("."):
        raise SAMMixError(f"{name!r}: not a usable model name; give another with --name")
    if target.exists() or name == STARTER:
        raise SAMMixError(f"{name}: a model of this name exists; give another with --name, or remove it first")
    # From now on the model goes by this name everywhere; the card itself has no hash.
    (copied / CARD).write_text(json.dumps(bundle.card | {"name": name}, indent=1) + "\n", encoding="utf-8")
    copied.rename(target)
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
    beside = target.with_name(f".{target.stem}-{os.getpid()}.zip")
    try:
        with zipfile.ZipFile(beside, "w") as archive:  # weights do not compress
            for name_inside in (CARD, *FILES):
                archive.write(bundle.folder / name_inside, f"{target.stem}/{name_inside}")
        beside.replace(target)
    except OSError as error:
        raise SAMMixError(f"{target}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        beside.unlink(missing_ok=True)
    return target


def _unzip(source: Path, folder: Path) -> Path:
    """The folder in the archive that holds the card."""
    try:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(folder)  # zipfile keeps members inside the folder
    except (zipfile.BadZipFile, OSError) as error:
        raise SAMMixError(f"{source}: not a readable zip file of a model bundle ({error})") from None
    cards = sorted(folder.rglob(CARD))
    if len(cards) != 1:
        raise SAMMixError(f"{source}: holds {len(cards)} model bundles; give a zip file of one")
    return cards[0].parent
