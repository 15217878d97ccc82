"""``sammix models``: the model bundles on this machine."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

from SAMMixLib.commands.common import add_overwrite_option
from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.card import CARD, dice_text, open_bundle, verify_bundle
from SAMMixLib.models.registry import (
    NameRefused,
    export_model,
    find_model,
    import_model,
    installed_models,
    remove_model,
)
from SAMMixLib.paths import models_folder


def add_command(commands) -> None:
    parser = commands.add_parser(
        "models", help="list, show, verify, remove, import or export models", description=__doc__
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, run, text in (
        ("list", _list, "all models with size and scores"),
        ("show", _show, "a model's card: config, data, licence, scores"),
        ("verify", _verify, "check every file against its hash"),
        ("remove", _remove, "delete one of your models"),
        ("import", _import, "copy a bundle, a folder or a zip file, among your models"),
        ("export", _export, "write a model as one zip file, to import it elsewhere"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        if name == "import":
            action.add_argument("source", type=Path)
            action.add_argument("--name", help="name for the model, if not its own")
        elif name != "list":
            action.add_argument("model", help="name or folder of the bundle")
        if name == "export":
            action.add_argument("target", type=Path, metavar="FILE.zip")
            add_overwrite_option(action)
        reads = ("source",) if name == "import" else () if name == "list" else ("model",)
        action.set_defaults(run=run, reads=reads, writes=("target",) if name == "export" else ())


def _list(options: argparse.Namespace) -> dict:
    rows, damaged = [], []
    for folder in installed_models():
        try:
            bundle = open_bundle(folder)
        except SAMMixError as error:
            damaged.append(str(error))
            continue
        training = bundle.card["training"]
        rows.append(
            {
                "name": folder.name,
                "megabytes": round(bundle.bytes / 1e6, 1),
                "labelled_slices": training.get("labelled_slices"),
                "validation_dice": bundle.dice,
                "folder": str(folder),
            }
        )
    for row in rows:
        dice = row["validation_dice"]
        score = "no score" if dice is None else f"validation Dice {dice_text(dice)} (cam)"
        print(f"{row['name']:20} {row['megabytes']:6.1f} MB  {row['labelled_slices']} labelled slices, {score}")
    for error in damaged:
        print(f"damaged: {error}")
    print(f"your models live in {models_folder()}")
    return {"models": rows, "damaged": damaged}


def _show(options: argparse.Namespace) -> dict:
    card = open_bundle(find_model(options.model)).card
    print(json.dumps(card, indent=2))
    return card


def _verify(options: argparse.Namespace) -> dict:
    bundle = open_bundle(find_model(options.model))
    verify_bundle(bundle)
    print(f"{bundle.name}: every file is as it was written")
    return {"name": bundle.name, "intact": True}


def _remove(options: argparse.Namespace) -> dict:
    folder = remove_model(options.model)
    print(f"removed {folder}")
    return {"removed": str(folder)}


def _import(options: argparse.Namespace) -> dict:
    try:
        bundle = import_model(options.source, options.name)
    except NameRefused as error:
        raise SAMMixError(f"{error} with --name") from None
    print(f"imported {bundle.folder.name} into {bundle.folder}")
    return {"name": bundle.folder.name, "folder": str(bundle.folder)}


def _export(options: argparse.Namespace) -> dict:
    from SAMMixLib.imaging.writing import check_replaceable

    check_replaceable(options.target)
    if options.target.exists() and not options.overwrite and not _is_exported(options.target):
        raise SAMMixError(f"{options.target}: is there and no exported model; choose another name, or add --overwrite")
    target = export_model(options.model, options.target)
    print(f"wrote {target}, {target.stat().st_size / 1e6:.1f} MB")
    return {"model": options.model, "file": str(target)}


def _is_exported(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name == CARD for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
