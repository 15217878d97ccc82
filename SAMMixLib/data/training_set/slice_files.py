"""Files of slices, each named by the hash of its content: what is read is what was written."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic


def write_slice_file(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    """Write the arrays into one file in `folder`, where it outlives a loss of power; its name.

    Raises:
        OSError: the disk does not take it.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    content = packed.getvalue()
    name = f"{_hash(content)}.npz"
    with atomic(folder / name, durable=True) as beside:
        beside.write_bytes(content)
    return name


def read_slice_file(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, from the disk.

    Raises:
        SAMMixError: the file is missing, or is not what was written.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SAMMixError(f"{file}: cannot be read ({error.strerror}); restore it from an export") from None
    if _hash(content) != file.stem:
        raise SAMMixError(f"{file}: is not as it was written; restore it from an export")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


recent_slice_file = lru_cache(maxsize=4)(read_slice_file)  # one file holds many slices, which are read one by one


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
