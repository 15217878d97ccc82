"""nnU-Net's networks."""

from typing import Any

def __getattr__(name: str) -> Any: ...
