"""nnU-Net's planning."""

from typing import Any

def __getattr__(name: str) -> Any: ...
