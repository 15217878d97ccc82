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
from SAMMixLib.worker.protocol import Message, decode, encode

START_SECONDS = 180.0  # until hello: torch from a slow disk, with a virus scanner
SILENCE_SECONDS = 60.0  # without any message; an import can hold up the heartbeat for some seconds
PATIENCE_SECONDS = {"load": 300.0, "resegment": 120.0, "unload": 60.0}  # without progress on a request
OTHER_PATIENCE_SECONDS = 600.0  # a batch of a large backbone on a slow CPU takes minutes
CANCEL_SECONDS = 1.8  # then the process is killed, so that all is over within 2 s
CLOSE_SECONDS = 1.0
OBSERVED_SECONDS = 1.0  # the most that one gap between two polls counts as waiting
LONGEST_LINE = 1 << 24


@dataclass
class _Pending:
    patience: float
    waited: float = 0.0
    cancelled: float | None = None  # so long ago


class WorkerClient:
    """Starts the worker and talks to it.

    Nothing here blocks but :meth:`close`, and that for two seconds at most. Whatever goes wrong with the process (a
    crash, a missed heartbeat or deadline) comes out of :meth:`poll` as a message of type "error", so a caller has one
    place to look. After such an end (`alive` is False) :meth:`start` starts a new process, which knows no model.

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
        self._own: list[Message] = []  # what the client itself has to say at the next poll
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
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._fatal: Message | None = None
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
                    env=self._child_environment(),
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

    def request(self, kind: str, **fields: Any) -> int:
        """Send a request of :mod:`~SAMMixLib.worker.protocol`; its id comes back in all that answers it."""
        number = next(self._ids)
        if not self.alive:
            self._own.append(self._error(number, "crash", "The segmentation process is not running; run it again."))
        else:
            self._send({"type": kind, "id": number, **fields})
            self._pending[number] = _Pending(PATIENCE_SECONDS.get(kind, OTHER_PATIENCE_SECONDS))
        return number

    def cancel(self, number: int) -> None:
        """End a request. The process is killed if it does not stop by itself; either way "cancelled" is reported.

        A request that is done before the cancel reaches it still gives its result.
        """
        pending = self._pending.get(number)
        if pending and pending.cancelled is None:
            pending.cancelled = 0.0
            self._send({"type": "cancel", "id": number})

    def poll(self) -> list[Message]:
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
            self._send({"type": "quit", "id": next(self._ids)})
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
            self._kill()
        if self._private is not None:
            self._private.remove(keep_log=self._failed)
            self._private = None
            atexit.unregister(self.close)

    def _drain(self) -> list[Message]:
        messages = []
        while True:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                return messages
            self._silence = 0.0
            if message is None:
                self._closed_pipe = True
                continue
            kind, number = message["type"], message.get("id")
            if kind == "heartbeat":
                continue
            if kind == "hello":
                self.pid = message["pid"]
                for pending in self._pending.values():
                    pending.waited = 0.0
            elif kind in ("progress", "report") and number in self._pending:
                self._pending[number].waited = 0.0
            elif kind in ("result", "error"):
                if number is None:  # the server's last words
                    self._fatal = message
                    continue
                if self._pending.pop(number, None) is None:
                    continue
                self._failed |= message.get("kind") == "internal"
            messages.append(message)

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
            self._end("cancelled", "Cancelled.")
        elif self._silence > (SILENCE_SECONDS if self.pid else START_SECONDS):
            self._end("timeout", f"The segmentation process has not answered for {self._silence:.0f} s; run it again.")
        elif first and self.pid and first.waited > first.patience:
            self._end("timeout", f"Nothing has moved for {first.waited:.0f} s; run it again.")

    def _end(self, kind: str, text: str) -> None:
        """Make sure that the process is gone, and tell every request."""
        self._failed |= kind != "cancelled"
        self._kill()
        self._own += [self._error(number, kind, text) for number in self._pending or [None]]
        self._pending = {}

    def _cause_of_death(self) -> tuple[str, str]:
        if self._fatal:
            return self._fatal["kind"], self._fatal["message"]
        if _oom_kills() > self._oom_kills:
            return "memory", "Memory ran out, and the system ended the segmentation process; close other programs."
        status = self._process.poll()
        if status == -9:
            how = "killed by a user, or by the system because memory ran out"
        elif status is None:
            how = "it closed its pipe"
        else:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return "crash", f"The segmentation process ended unexpectedly ({how}); run it again. The log says more."

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

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the end of the process shows in poll
            self._process.stdin.write(encode(message))
            self._process.stdin.flush()

    def _error(self, number: int | None, kind: str, text: str) -> Message:
        return {"type": "error", "id": number, "kind": kind, "message": text, "log": str(self.log_path or "")}

    def _take_own(self) -> list[Message]:
        own, self._own = self._own, []
        return own

    def _child_environment(self) -> dict[str, str]:
        environment = dict(os.environ if self._environment is None else self._environment)
        paths = [str(Path(SAMMixLib.__file__).resolve().parents[1]), environment.get("PYTHONPATH", "")]
        return environment | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONSAFEPATH": "1",  # no module comes from the folder that the host happens to be in
            "PYTHONUNBUFFERED": "1",
        }


def _read(stream: BinaryIO, messages: queue.SimpleQueue[Message | None]) -> None:
    for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
        messages.put(decode(line) or {"type": "log", "text": line[:1000].decode(errors="replace").strip()})
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
