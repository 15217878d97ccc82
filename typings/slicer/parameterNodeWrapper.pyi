"""Slicer's typed parameter nodes."""

from typing import Any

def __getattr__(name: str) -> Any: ...
