"""Slicer's installer of packages, from 5.12 on."""

from typing import Any

def __getattr__(name: str) -> Any: ...
