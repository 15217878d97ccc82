"""VTK as Slicer brings it, the same for the checker on machines without it."""

from typing import Any

def __getattr__(name: str) -> Any: ...
