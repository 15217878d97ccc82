"""Weights from files: checked by hash, read without running code, loaded without a missing or a left-over key."""

from __future__ import annotations

import hashlib
import http.client
import os
import pickle
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import CHUNK, sha256_of
from SAMMixLib.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor, nn


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


def load_strictly(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Copy `state` into `module` when every key and every shape fits, otherwise change nothing.

    Args:
        what: names the weights in the error.

    Raises:
        SAMMixError: names the first keys that are missing, unexpected or of another shape, and how many there are.
    """
    check_fit(module.state_dict(), state, what)
    module.load_state_dict(state)


def check_fit(own: dict[str, Tensor], state: dict[str, Tensor], what: str) -> None:
    """Refuse a `state` whose keys or shapes are not those of `own`, as :func:`load_strictly` does."""
    misfits = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {list(state[key].shape)} for {list(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    if any(misfits.values()):
        found = "; ".join(
            f"{len(keys)} {kind}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
            for kind, keys in misfits.items()
            if keys
        )
        raise SAMMixError(f"{what}: the weights do not fit this network ({found}); give the weights made for it")


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
    temporary = target.with_name(f".{target.stem}-{os.getpid()}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            actual = _fetch(public.url, file, f"download {public.name}", progress)
        if actual != public.sha256:
            raise SAMMixError(f"{public.url}: SHA-256 is {actual} and should be {public.sha256}; try again later")
        os.replace(temporary, target)
    except (OSError, http.client.HTTPException) as error:
        raise SAMMixError(f"{public.url}: cannot be downloaded to {target} ({error}); try again later") from error
    finally:
        temporary.unlink(missing_ok=True)
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
