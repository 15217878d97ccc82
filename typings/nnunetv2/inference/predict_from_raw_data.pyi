"""nnU-Net's predictor."""

from typing import Any

def __getattr__(name: str) -> Any: ...
