"""The module of the PyTorch extension."""

from typing import Any

def __getattr__(name: str) -> Any: ...
