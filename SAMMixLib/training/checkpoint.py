"""The state of an unfinished training run on disk. A kill while it is written leaves the old one in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic

FILE = "checkpoint.pt"


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: trainable parameters, and the running statistics of batch norms that learn."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    learning = {name.rpartition(".")[0] for name in trainable}
    buffers = {name for name, _ in model.named_buffers() if name.rpartition(".")[0] in learning}
    return {name: value for name, value in model.state_dict().items() if name in trainable | buffers}


def load_trained_state(model: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Put back what :func:`trained_state` took.

    Raises:
        SAMMixError: the names or shapes differ, since the checkpoint belongs to another config.
    """
    expected = {name: value.shape for name, value in trained_state(model).items()}
    if expected != {name: value.shape for name, value in state.items()}:
        raise SAMMixError(
            f"{source}: the checkpoint belongs to another config; resume with its own, or start a new run"
        )
    model.load_state_dict(state, strict=False)


def write_checkpoint(content: dict[str, Any], folder: Path) -> None:
    """Write beside the old checkpoint, then take its place."""
    try:
        with atomic(folder / FILE) as beside:
            torch.save(content, beside)
    except (OSError, RuntimeError) as error:
        raise SAMMixError(f"{folder / FILE}: cannot be written ({error}); free some disk space, then resume") from None


def read_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The run's checkpoint, or None when it has none yet.

    Raises:
        SAMMixError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise SAMMixError(f"{path}: not a readable checkpoint ({reason}); delete it to start over") from None
