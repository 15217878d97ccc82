"""Weights go into a network whole or not at all: no key missing, none left over, every shape as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from SAMMixLib.errors import SAMMixError

if TYPE_CHECKING:
    from torch import Tensor, nn


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
