"""nnU-Net, an extra of the experiments: the same for the checker on machines without it."""

from typing import Any

def __getattr__(name: str) -> Any: ...
