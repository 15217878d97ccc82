"""The worker's process as its client sees it: its pipes, how to end it, and how it ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import SAMMixLib
from SAMMixLib.worker.protocol import ErrorKind

CLOSE_SECONDS = 1.0
LONGEST_LINE = 1 << 24
FATAL = b"Fatal Python error: "  # what Python writes into the log when the process itself makes a mistake
LOG_TAIL = 1 << 16  # bytes at the end of the log that are searched for it
KILLED = -9
KILLED_BY_LAUNCHER = (1, 128 + 9)  # what a launcher such as PythonSlicer makes of a child that was killed


class Child:
    """A process that was started, with a thread that reads its lines.

    Attributes:
        lines: what it says; None once it has closed its pipe.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None, log: Path) -> None:
        self._log, self._oom_kills = log, oom_kills()
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with log.open("ab") as file:
            self._log_start = file.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=_child_environment(environment),
                **_apart(),
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._reader = threading.Thread(target=self._read, args=(self._stdout,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of what was started: the worker itself, or a launcher that it stands behind."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, line: bytes) -> None:
        """Write a line. That nobody reads it any more is seen by :attr:`lines`."""
        with contextlib.suppress(OSError):
            self._stdin.write(line)
            self._stdin.flush()

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self, worker: int | None) -> None:
        """Make sure that all is gone: what was started, and the worker itself where its number is known."""
        if not self.alive:
            self._reader.join(0.2)
        if self.alive or self._reader.is_alive():  # else there is nobody whom the numbers still name
            _kill_tree(self.pid, worker)
        self.wait(CLOSE_SECONDS)
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._reader.join(CLOSE_SECONDS)
        if not self._reader.is_alive():
            self._stdout.close()

    def cause_of_death(self, worker: int | None) -> tuple[ErrorKind, str]:
        """Kind and text for the user; `worker` is the number that it gave in its hello."""
        if oom_kills() > self._oom_kills:
            text = "Memory ran out, and the system ended the segmentation process; close other programs."
            return ErrorKind.MEMORY, text
        how = self._how_it_ended(worker)
        text = f"The segmentation process ended unexpectedly ({how}); run it again. The log says more."
        return ErrorKind.CRASH, text

    def _how_it_ended(self, worker: int | None) -> str:
        status, launched = self._process.poll(), worker not in (None, self.pid)
        if status is None:
            return "it closed its pipe"
        if mistake := self._mistake():
            return mistake
        # Behind a launcher no signal is seen. The worker itself has said its last words before it ends with status 1.
        if status == KILLED or (launched and status in KILLED_BY_LAUNCHER):
            return "killed by a user, or by the system because memory ran out"
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def _mistake(self) -> str:
        """What ended the process, such as "Segmentation fault", where Python has written it into the log."""
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - LOG_TAIL))
            _, found, rest = file.read().rpartition(FATAL)
            return rest.partition(b"\n")[0].decode(errors="replace").strip() if found else ""
        return ""

    def _read(self, stream: BinaryIO) -> None:
        for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
            self.lines.put(line)
        self.lines.put(None)


def oom_kills() -> int:
    """How often Linux has killed a process because memory ran out; 0 elsewhere."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counters["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0


def _child_environment(environment: Mapping[str, str] | None) -> dict[str, str]:
    """With the path to SAMMixLib, and what keeps the process to itself."""
    chosen = dict(os.environ if environment is None else environment)
    paths = [str(Path(SAMMixLib.__file__).resolve().parents[1]), chosen.get("PYTHONPATH", "")]
    return chosen | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONSAFEPATH": "1",  # no module comes from the folder that the host happens to be in
        "PYTHONUNBUFFERED": "1",
    }


def _apart() -> dict[str, Any]:
    """Options of Popen for a process that gets no Ctrl-C of the terminal and no window, and can be killed as a tree."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _kill_tree(started: int, worker: int | None) -> None:
    """Kill what was started, and what that started: a launcher such as PythonSlicer is not the worker itself."""
    if os.name == "nt":
        for each in {started, worker or started}:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(each)], capture_output=True, timeout=10, **_apart())
        return
    for kill, number in ((os.killpg, started), (os.kill, worker)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number:
                kill(number, signal.SIGKILL)
