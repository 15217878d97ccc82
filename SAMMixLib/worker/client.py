"""The side of the worker that runs in Slicer, or in any process that must stay free of torch. No Qt either."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import SAMMixLib
from SAMMixLib.errors import SAMMixError
from SAMMixLib.worker.folders import PrivateFolder, sweep
from SAMMixLib.worker.protocol import (
    Cancel,
    ErrorKind,
    Failed,
    Heartbeat,
    Hello,
    LogLine,
    Progressed,
    Quit,
    Reported,
    Request,
    decode_answer,
    encode,
)

START_SECONDS = 180.0  # until hello: torch from a slow disk, with a virus scanner
SILENCE_SECONDS = 60.0  # without any message; an import can hold up the heartbeat for some seconds
CANCEL_SECONDS = 1.8  # then the process is killed, so that all is over within 2 s
CLOSE_SECONDS = 1.0
OBSERVED_SECONDS = 1.0  # the most that one gap between two polls counts as waiting
LONGEST_LINE = 1 << 24


Answer = tuple["int | None", Any]
"""The id of the request that a message belongs to, and the message."""


@dataclass
class _Pending:
    request: Request
    waited: float = 0.0
    cancelled: float | None = None  # so long ago


class WorkerClient:
    """Starts the worker and talks to it.

    Nothing here blocks but :meth:`close`, and that for two seconds at most. Whatever goes wrong with the process (a
    crash, a missed heartbeat or deadline) comes out of :meth:`poll` as a :class:`~SAMMixLib.worker.protocol.Failed`, so a
    caller has one place to look. After such an end (`alive` is False) :meth:`start` starts a new process, which knows no model.

    Args:
        command: what runs ``python -m SAMMixLib.worker``; the private folder is appended. By default this Python.
        environment: of the process; by default this process's own. The path to SAMMixLib is added to it.
        folder: where the private folder is made; by default the system's place for temporary files.

    Attributes:
        folder: private (0700), for files that go to the worker and come back; removed by :meth:`close`.
        log_path: what the process printed. Outlives :meth:`close` if something went wrong.
        pid: of the process that answers, which need not be the one that was started; None before hello.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self._command = list(command) if command else [sys.executable, "-m", "SAMMixLib.worker"]
        self._environment = environment
        self._parent = Path(folder or tempfile.gettempdir())
        self._private: PrivateFolder | None = None
        self._process: subprocess.Popen | None = None
        self._ids = itertools.count(1)
        self._own: list[Answer] = []  # what the client itself has to say at the next poll
        self._pending: dict[int, _Pending] = {}  # in the order in which the server works
        self._failed = False
        self.folder: Path | None = None
        self.log_path: Path | None = None
        self.pid: int | None = None

    def __enter__(self) -> WorkerClient:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    @property
    def idle(self) -> bool:
        """Whether the process has said hello and nothing is left to do."""
        return self.alive and self.pid is not None and not self._pending

    def start(self) -> None:
        """Start the process, unless it runs. Returns at once; hello follows by :meth:`poll`.

        Raises:
            SAMMixError: the command cannot be run, or the folder cannot be made.
        """
        if self.alive:
            return
        if self._process is not None:  # nobody has polled since it ended
            self._end(*self._cause_of_death())
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._fatal: Failed | None = None
        self._ended: float | None = None  # when the end was first seen
        self._closed_pipe = False
        self._silence = 0.0
        self._polled = time.monotonic()
        self._oom_kills = _oom_kills()
        self.pid = None
        try:
            if self._private is None:
                sweep(self._parent)
                self._private = PrivateFolder(self._parent)
                self.folder, self.log_path = self._private.path, self._private.log
                atexit.register(self.close)
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command, str(self.folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_child_environment(self._environment),
                    **_apart(),
                )
        except OSError as error:
            raise SAMMixError(
                f"{error.filename or self._command[0]}: the worker cannot be started ({error.strerror})"
            ) from error
        self._reader = threading.Thread(
            target=_read, args=(self._process.stdout, self._messages), name="SAMMix worker reader", daemon=True
        )
        self._reader.start()

    def request(self, request: Request) -> int:
        """Send a request; the id that this gives back comes with all that answers it."""
        number = next(self._ids)
        if not self.alive:
            gone = "The segmentation process is not running; run it again."
            self._own.append((number, self._failure(ErrorKind.CRASH, gone)))
        else:
            self._send(encode(request, number))
            self._pending[number] = _Pending(request)
        return number

    def cancel(self, number: int) -> None:
        """End a request. The process is killed if it does not stop by itself; either way "cancelled" is reported.

        A request that is done before the cancel reaches it still gives its result.
        """
        pending = self._pending.get(number)
        if pending and pending.cancelled is None:
            pending.cancelled = 0.0
            self._send(encode(Cancel(), number))

    def poll(self) -> list[Answer]:
        """The messages since the last call, in order; never blocks. Call it at least every second while waiting."""
        if self._process is None:
            return self._take_own()
        now = time.monotonic()
        # What was not watched does not count: the caller's own thread may have been held up, or the machine asleep.
        observed, self._polled = min(now - self._polled, OBSERVED_SECONDS), now
        self._silence += observed
        for n, pending in enumerate(self._pending.values()):
            if n == 0:  # the server works on one at a time
                pending.waited += observed
            if pending.cancelled is not None:
                pending.cancelled += observed
        messages = self._drain()
        self._look_after(now)
        return messages + self._take_own()

    def close(self) -> None:
        """End the process and remove the private folder."""
        if self._process is not None:
            self._send(encode(Quit(), next(self._ids)))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
            self._kill()
        if self._private is not None:
            self._private.remove(keep_log=self._failed)
            self._private = None
            atexit.unregister(self.close)

    def _drain(self) -> list[Answer]:
        answers = []
        while True:
            try:
                line = self._messages.get_nowait()
            except queue.Empty:
                return answers
            self._silence = 0.0
            if line is None:
                self._closed_pipe = True
                continue
            asked = {number: type(pending.request) for number, pending in self._pending.items()}
            number, message = decode_answer(line, asked)
            if self._is_news(number, message):
                answers.append((number, message))

    def _is_news(self, number: int | None, message: Any) -> bool:
        """Take note of a message; whether it is one for the caller."""
        if isinstance(message, Heartbeat):
            return False
        if isinstance(message, Hello):
            self.pid = message.pid
            for pending in self._pending.values():
                pending.waited = 0.0
        elif isinstance(message, (Progressed, Reported)):
            if number in self._pending:
                self._pending[number].waited = 0.0
        elif isinstance(message, Failed) and number is None:  # the worker's last words
            self._fatal = message
            return False
        elif not isinstance(message, LogLine):
            if self._pending.pop(number, None) is None:
                return False
            self._failed |= isinstance(message, Failed) and message.kind is ErrorKind.INTERNAL
        return True

    def _look_after(self, now: float) -> None:
        """Find out whether the process has ended, hangs, or did not obey a cancel."""
        signs = self._closed_pipe, self._process.poll() is not None
        if any(signs):
            self._ended = self._ended or now
            if all(signs) or now - self._ended > 1:  # a child of the process may still hold the pipe
                self._end(*self._cause_of_death())
            return
        first = next(iter(self._pending.values()), None)
        if any((pending.cancelled or 0.0) > CANCEL_SECONDS for pending in self._pending.values()):
            self._end(ErrorKind.CANCELLED, "Cancelled.")
        elif self._silence > (SILENCE_SECONDS if self.pid else START_SECONDS):
            self._end(ErrorKind.TIMEOUT, f"The segmentation process has not answered for {self._silence:.0f} s; run it again.")
        elif first and self.pid and first.waited > first.request.patience:
            self._end(ErrorKind.TIMEOUT, f"Nothing has moved for {first.waited:.0f} s; run it again.")

    def _end(self, kind: ErrorKind, text: str) -> None:
        """Make sure that the process is gone, and tell every request."""
        self._failed |= kind is not ErrorKind.CANCELLED
        self._kill()
        self._own += [(number, self._failure(kind, text)) for number in self._pending or [None]]
        self._pending = {}

    def _cause_of_death(self) -> tuple[ErrorKind, str]:
        if self._fatal:
            return self._fatal.kind, self._fatal.message
        if _oom_kills() > self._oom_kills:
            text = "Memory ran out, and the system ended the segmentation process; close other programs."
            return ErrorKind.MEMORY, text
        status = self._process.poll()
        if status is None:
            how = "it closed its pipe"
        elif status == -9 or (status == 1 and self.pid not in (None, self._process.pid)):
            how = "killed by a user, or by the system because memory ran out"  # a launcher tells of any signal as 1
        else:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return (
            ErrorKind.CRASH,
            f"The segmentation process ended unexpectedly ({how}); run it again. The log says more.",
        )

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process.poll() is not None:
            self._reader.join(0.2)
        if process.poll() is None or self._reader.is_alive():  # else there is nobody whom the numbers still name
            _kill_tree(process, self.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CLOSE_SECONDS)
        with contextlib.suppress(OSError):
            process.stdin.close()
        self._reader.join(CLOSE_SECONDS)
        if not self._reader.is_alive():
            process.stdout.close()

    def _send(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # the end of the process shows in poll
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _failure(self, kind: ErrorKind, text: str) -> Failed:
        return Failed(kind, text, str(self.log_path or ""))

    def _take_own(self) -> list[Answer]:
        own, self._own = self._own, []
        return own

def _child_environment(environment: Mapping[str, str] | None) -> dict[str, str]:
    """With the path to SAMMixLib, and what keeps the process to itself."""
    chosen = dict(os.environ if environment is None else environment)
    paths = [str(Path(SAMMixLib.__file__).resolve().parents[1]), chosen.get("PYTHONPATH", "")]
    return chosen | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONSAFEPATH": "1",  # no module comes from the folder that the host happens to be in
        "PYTHONUNBUFFERED": "1",
    }


def _read(stream: BinaryIO, messages: queue.SimpleQueue[bytes | None]) -> None:
    for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
        messages.put(line)
    messages.put(None)


def _apart() -> dict[str, Any]:
    """Options of Popen for a process that gets no Ctrl-C of the terminal and no window, and can be killed as a tree."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _kill_tree(process: subprocess.Popen, pid: int | None) -> None:
    """Kill what was started, and what that started: a launcher such as PythonSlicer is not the worker itself."""
    if os.name == "nt":
        for each in {process.pid, pid or process.pid}:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(each)], capture_output=True, timeout=10, **_apart())
        return
    for kill, number in ((os.killpg, process.pid), (os.kill, pid)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number:
                kill(number, signal.SIGKILL)


def _oom_kills() -> int:
    """How often Linux has killed a process because memory ran out; 0 elsewhere."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counters["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0
