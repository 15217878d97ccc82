"""Slicer fills this module while it starts (MRML classes, ``util``, ``app``, ``modules``): every name is dynamic."""

from typing import Any

def __getattr__(name: str) -> Any: ...
