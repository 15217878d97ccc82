"""PythonQt: Qt as Slicer's application has it."""

from typing import Any

def __getattr__(name: str) -> Any: ...
