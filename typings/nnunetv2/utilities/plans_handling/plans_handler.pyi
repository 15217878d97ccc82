"""nnU-Net's plans."""

from typing import Any

def __getattr__(name: str) -> Any: ...
