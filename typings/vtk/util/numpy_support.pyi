"""VTK arrays as numpy arrays."""

from typing import Any

def __getattr__(name: str) -> Any: ...
