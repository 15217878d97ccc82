"""The Common Toolkit's widgets, through PythonQt."""

from typing import Any

def __getattr__(name: str) -> Any: ...
