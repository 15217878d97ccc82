"""What is remembered between two runs of the application: choices of this machine, not of a scene."""

from __future__ import annotations

import json
from typing import Any

from SAMMixLib.module.protocols import Store
from SAMMixLib.paths import STARTER

AUTO = "auto"


class Settings:
    """Typed values over the application's settings, each one JSON under ``SAMMix/``."""

    def __init__(self, store: Store):
        self._store = store

    def get(self, name: str, default: Any) -> Any:
        try:
            return json.loads(self._store.value(f"SAMMix/{name}", ""))
        except (ValueError, TypeError):  # never written, or by something else
            return default

    def set(self, name: str, value: Any) -> None:
        self._store.setValue(f"SAMMix/{name}", json.dumps(value))

    @property
    def model(self) -> str:
        return self.get("model", STARTER)

    @model.setter
    def model(self, name: str) -> None:
        self.set("model", name)

    @property
    def device(self) -> str:
        return self.get("device", AUTO)

    @device.setter
    def device(self, name: str) -> None:
        self.set("device", name)

    @property
    def devices(self) -> list[dict[str, str]]:
        """The devices that the worker found last, each with ``name`` and ``text``, the preferred one first."""
        return self.get("devices", [])

    @devices.setter
    def devices(self, found: list[dict[str, str]]) -> None:
        self.set("devices", found)
