"""nnU-Net's trainer."""

from typing import Any

def __getattr__(name: str) -> Any: ...
