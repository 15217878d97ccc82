"""The one place of the cohort that knows how a scan is read, segmented and written: the engine of every other door."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMMixLib.cohort.manifest import Entry
from SAMMixLib.errors import SAMMixError

if TYPE_CHECKING:
    from SAMMixLib.imaging.volume import Volume
    from SAMMixLib.inference.segmenter import Segmenter


@dataclass(frozen=True)
class ModelSource:
    """What a worker needs to load the model: a path that it sees, too, and the hash that it must find there.

    ``threads`` is the number of CPU threads of one worker, 0 as many as torch takes by itself.
    """

    folder: str
    sha256: str
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 8
    base_weights: str | None = None
    threads: int = 0

    def load(self, worker: Any = 0) -> Segmenter:
        """The model, ready to segment; the GPUs of a machine are dealt to the workers by their numbers.

        Raises:
            SAMMixError: the model is not there, not this one, or damaged.
        """
        import torch

        from SAMMixLib.cohort.records import model_hash
        from SAMMixLib.inference.segmenter import Segmenter

        if model_hash(self.folder) != self.sha256:
            raise SAMMixError(f"{self.folder}: the worker finds another model there; give all machines the same one")
        if self.threads:
            torch.set_num_threads(self.threads)
        device = self.device
        if device == "auto" and torch.cuda.is_available() and str(worker).isdecimal():
            device = f"cuda:{int(worker) % torch.cuda.device_count()}"
        return Segmenter.from_bundle(
            self.folder, device, self.dtype, batch_size=self.batch_size, base_weights=self.base_weights
        )


def versions() -> dict[str, str]:
    """The versions that a result was made with."""
    import torch

    from SAMMixLib import __version__

    return {"sammix": __version__, "torch": str(torch.__version__)}


@contextmanager
def reading(entry: Entry, shown: str = "") -> Iterator[Volume]:
    """The scan, read; whatever it is warned of or refused for names the scan by `shown`, or else by its path.

    Files that are strewn over an export, or whose names must not show, are linked into a folder of their own first.

    Raises:
        SAMMixError: as :func:`SAMMixLib.imaging.volume.read_volume`.
    """
    from SAMMixLib.imaging.volume import Volume, read_volume

    if not entry.files and not shown:
        if not entry.path:
            raise SAMMixError(f"{entry.name}: the row gives no path")
        yield read_volume(entry.path, entry.series or None)
        return
    with tempfile.TemporaryDirectory(prefix="sammix-") as folder:
        linked = _linked(entry, Path(folder))
        try:
            volume = read_volume(linked, entry.series or None if linked.is_dir() else None)
        except SAMMixError as error:
            raise SAMMixError(_renamed(str(error), linked, shown or entry.path)) from None
        warnings = tuple(_renamed(warning, linked, shown or entry.path) for warning in volume.warnings)
        yield Volume(volume.image, Path(shown or entry.path), warnings)


def _renamed(text: str, linked: Path, shown: str) -> str:
    return text.replace(str(linked), shown).replace(f"{linked.parent}{os.sep}", "")


def _linked(entry: Entry, folder: Path) -> Path:
    """What to read in `folder`, whose names say nothing: a folder of numbered files, or one file by its suffix."""
    path, sources = Path(entry.path), entry.sources()
    if entry.files or path.is_dir():
        inside = folder / "series"
        inside.mkdir()
        for number, file in enumerate(sources):
            _link(file, inside / f"{number:06}{'.dcm' if file.suffix.lower() == '.dcm' else ''}")
        return inside
    suffix = "".join(path.suffixes[-2:]) if path.name.lower().endswith(".nii.gz") else path.suffix
    target = folder / f"scan{suffix}"
    _link(path, target)
    for file in sources:
        if file != path:  # detached voxels, which the header knows by their name
            _link(file, folder / file.name)
    return target


def _link(file: Path, target: Path) -> None:
    try:
        target.symlink_to(file.resolve())
    except OSError:  # Windows asks for a right to make links
        import shutil

        try:
            shutil.copyfile(file, target)
        except OSError as error:
            raise SAMMixError(f"{file}: cannot be read ({error.strerror}); check the path") from None
