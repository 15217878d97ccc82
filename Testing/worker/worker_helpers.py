"""What the tests of the worker share: waiting, always with a limit."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from SAMMixLib.worker.client import Answer, LogLine, WorkerClient
from SAMMixLib.worker.protocol import Hello, Message, Progressed, Reported

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def collect(client: WorkerClient, until, seconds: float = 120) -> list[Answer]:
    """The ids and messages up to the first pair that `until` is true of."""
    answers, limit = [], time.monotonic() + seconds
    while time.monotonic() < limit:
        for answer in client.poll():
            answers.append(answer)
            if until(*answer):
                return answers
        time.sleep(0.005)
    raise AssertionError(f"not within {seconds} s: {answers}")


def said_hello(number: int | None, message: Message) -> bool:
    return isinstance(message, Hello)


def answers(request: int | None):
    """Whether a message is the last word on a request; None: on the process."""
    return lambda number, message: (
        number == request and not isinstance(message, (Progressed, Reported, Hello, LogLine))
    )  # fmt: skip


def answer(client: WorkerClient, request: int | None, seconds: float = 120) -> Message:
    return collect(client, answers(request), seconds)[-1][1]


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").is_dir()


def wait_for(condition, seconds: float = 60) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and not condition():
        time.sleep(0.01)
    return condition()
