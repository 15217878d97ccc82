"""Base classes of a scripted module."""

from typing import Any

def __getattr__(name: str) -> Any: ...
