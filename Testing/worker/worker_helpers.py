"""What the tests of the worker share: waiting, always with a limit."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from SAMMixLib.worker.client import WorkerClient

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def collect(client: WorkerClient, until, seconds: float = 20) -> list[dict]:
    """The messages up to the first one that `until` is true of."""
    messages, limit = [], time.monotonic() + seconds
    while time.monotonic() < limit:
        for message in client.poll():
            messages.append(message)
            if until(message):
                return messages
        time.sleep(0.005)
    raise AssertionError(f"not within {seconds} s: {messages}")


def said_hello(message: dict) -> bool:
    return message["type"] == "hello"


def answer(client: WorkerClient, request: int | None, seconds: float = 20) -> dict:
    return collect(client, lambda m: m["type"] in ("result", "error") and m["id"] == request, seconds)[-1]


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").is_dir()


def wait_for(condition, seconds: float = 5) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not condition():
        time.sleep(0.01)
    return condition()
