"""A training set as one zip file, for another machine: checked before it is written and after it was read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from SAMMixLib.data.training_set.card import CARD, Card
from SAMMixLib.data.training_set.journal import JOURNAL, SLICES, Journal, lines
from SAMMixLib.data.training_set.slice_files import read_slice_file
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic, new_folder, unzip


def verified_in_steps(journal: Journal) -> Iterator[None]:
    """Check every file of a set against its hash, and the journal against what the files say, a file a step.

    Raises:
        SAMMixError: something is missing, or is not what was written; names the first file.
    """
    for event in journal.events:
        if event["event"] == "add":
            file = journal.folder / SLICES / event["file"]
            arrays = read_slice_file(file)
            said = [arrays[key].tolist() for key in ("patient", "slice", "label", "spacing")]
            if said != [event["patient"], event["slices"], event["labels"], event["spacing"]]:
                raise SAMMixError(f"{journal.file}: differs from {file.name}; restore it from an export")
            yield


def export_in_steps(folder: Path, target: Path) -> Iterator[None]:
    """Write the set in `folder` as the zip file `target`, which is there after the last step.

    Raises:
        SAMMixError: the set is damaged, or the file cannot be written.
    """
    if target.suffix.lower() != ".zip":
        raise SAMMixError(f"{target}: a training set is exported as a .zip file; give such a name")
    journal = Journal(folder)
    yield from verified_in_steps(journal)
    try:
        with atomic(target) as beside, zipfile.ZipFile(beside, "w") as archive:  # the slices are packed already
            archive.write(folder / CARD, f"{target.stem}/{CARD}")
            archive.writestr(f"{target.stem}/{JOURNAL}", lines(journal.events))
            for file in sorted({event["file"] for event in journal.events if event["event"] == "add"}):
                archive.write(folder / SLICES / file, f"{target.stem}/{SLICES}/{file}")
                yield
    except OSError as error:
        raise SAMMixError(f"{target}: cannot be written ({error.strerror}); choose another place") from None


def import_in_steps(source: Path, folder: Path) -> Iterator[None]:
    """Unpack the set of a zip file into a new `folder`, which is there after the last step.

    Raises:
        SAMMixError: no such set, a damaged one, or there is something in `folder`.
    """
    with new_folder(folder) as beside:
        unpacked = beside.with_name("zip")
        yield from unzip(source, unpacked, "a training set")
        cards = list(unpacked.rglob(CARD))
        if len(cards) != 1:
            raise SAMMixError(f"{source}: holds {len(cards)} training sets; give a zip file of one")
        beside.rmdir()
        cards[0].parent.rename(beside)
        try:
            Card.read(beside)
            yield from verified_in_steps(Journal(beside))
        except SAMMixError as error:
            raise SAMMixError(f"{source}: {str(error).removeprefix(f'{beside}{os.sep}')}") from None
