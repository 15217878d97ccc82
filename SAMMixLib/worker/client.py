"""The side of the worker that runs in Slicer, or in any process that must stay free of torch. No Qt either."""

from __future__ import annotations

import atexit
import itertools
import queue
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from SAMMixLib.errors import SAMMixError
from SAMMixLib.worker.child import CLOSE_SECONDS, Child
from SAMMixLib.worker.folders import PrivateFolder, sweep
from SAMMixLib.worker.protocol import (
    Cancel,
    ErrorKind,
    Failed,
    Heartbeat,
    Hello,
    Message,
    Progressed,
    ProtocolError,
    Quit,
    Reported,
    Request,
    decode,
    encode,
)

START_SECONDS = 180.0  # until hello: torch from a slow disk, with a virus scanner
SILENCE_SECONDS = 60.0  # without any message; an import can hold up the heartbeat for some seconds
CANCEL_SECONDS = 1.8  # then the process is killed, so that all is over within 2 s
OBSERVED_SECONDS = 1.0  # the most that one gap between two polls counts as waiting

Answer = tuple["int | None", Message]
"""The id of the request that a message belongs to, and the message."""


@dataclass(frozen=True)
class LogLine(Message):
    """A line of the worker's that was no message; it never travels."""

    text: str


@dataclass
class _Pending:
    request: Request
    waited: float = 0.0
    cancelled: float | None = None  # so long ago


class WorkerClient:
    """Starts the worker and talks to it.

    Nothing here blocks but :meth:`close`, and that for two seconds at most. Whatever goes wrong with the process (a
    crash, a missed heartbeat or deadline) comes out of :meth:`poll` as :class:`~SAMMixLib.worker.protocol.Failed`, so a
    caller has one place to look. After such an end (`alive` is False) :meth:`start` starts a new process, which knows
    no model.

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
        self._child: Child | None = None
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
        return self._child is not None and self._child.alive

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
        if self._child is not None:  # nobody has polled since it ended
            self._end(*self._cause_of_death(self._child))
        self._last_words: Failed | None = None
        self._refused = ""  # why its hello is not understood
        self._ended: float | None = None  # when the end was first seen
        self._closed_pipe = False
        self._silence = 0.0
        self._polled = time.monotonic()
        self.pid = None
        try:
            if self._private is None:
                sweep(self._parent)
                self._private = PrivateFolder(self._parent)
                self.folder, self.log_path = self._private.path, self._private.log
                atexit.register(self.close)
            self._child = Child([*self._command, str(self.folder)], self._environment, self._private.log)
        except OSError as error:
            raise SAMMixError(
                f"{error.filename or self._command[0]}: the worker cannot be started ({error.strerror})"
            ) from error

    def request(self, request: Request) -> int:
        """Send a request; the id that this gives back comes with all that answers it."""
        number = next(self._ids)
        if self._child is None or not self._child.alive:
            gone = "The segmentation process is not running; run it again."
            self._own.append((number, self._failure(ErrorKind.CRASH, gone)))
        else:
            self._child.send(encode(request, number))
            self._pending[number] = _Pending(request)
        return number

    def cancel(self, number: int) -> None:
        """End a request. The process is killed if it does not stop by itself; either way "cancelled" is reported.

        A request that is done before the cancel reaches it still gives its result.
        """
        pending = self._pending.get(number)
        if self._child and pending and pending.cancelled is None:
            pending.cancelled = 0.0
            self._child.send(encode(Cancel(), number))

    def poll(self) -> list[Answer]:
        """The messages since the last call, in order; never blocks. Call it at least every second while waiting."""
        if self._child is None:
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
        answers = self._drain(self._child)
        self._look_after(self._child, now)
        return answers + self._take_own()

    def close(self) -> None:
        """End the process and remove the private folder."""
        if self._child is not None:
            self._child.send(encode(Quit()))
            self._child.wait(CLOSE_SECONDS)
            self._kill()
        if self._private is not None:
            self._private.remove(keep_log=self._failed)
            self._private = None
            atexit.unregister(self.close)

    def _drain(self, child: Child) -> list[Answer]:
        answers: list[Answer] = []
        while True:
            try:
                line = child.lines.get_nowait()
            except queue.Empty:
                return answers
            self._silence = 0.0
            if line is None:
                self._closed_pipe = True
                continue
            try:
                found = decode(line) or (None, LogLine(line[:1000].decode(errors="replace").strip()))
            except ProtocolError as error:
                found = self._refuse(error)
            if self._is_news(*found):
                answers.append(found)

    def _refuse(self, error: ProtocolError) -> Answer:
        """What becomes of a message that is none: its request has failed, and after a wrong hello the process has."""
        text = f"The segmentation process says what is not understood ({error}); restart the application."
        if error.name == "hello":
            self._refused = text
        if error.number in self._pending:
            return error.number, self._failure(ErrorKind.INTERNAL, text)
        return None, LogLine(str(error))

    def _is_news(self, number: int | None, message: Message) -> bool:
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
        elif isinstance(message, Failed) and number is None:
            self._last_words = message
            return False
        elif not isinstance(message, LogLine):
            if number is None or self._pending.pop(number, None) is None:
                return False
            self._failed |= isinstance(message, Failed) and message.kind is ErrorKind.INTERNAL
        return True

    def _look_after(self, child: Child, now: float) -> None:
        """Find out whether the process has ended, hangs, or did not obey a cancel."""
        signs = self._closed_pipe, not child.alive
        if any(signs):
            self._ended = self._ended or now
            if all(signs) or now - self._ended > 1:  # a child of the process may still hold the pipe
                self._end(*self._cause_of_death(child))
            return
        first = next(iter(self._pending.values()), None)
        if self._refused:
            self._end(ErrorKind.INTERNAL, self._refused)
        elif any((pending.cancelled or 0.0) > CANCEL_SECONDS for pending in self._pending.values()):
            self._end(ErrorKind.CANCELLED, "Cancelled.")
        elif self._silence > (SILENCE_SECONDS if self.pid else START_SECONDS):
            silent = f"The segmentation process has not answered for {self._silence:.0f} s; run it again."
            self._end(ErrorKind.TIMEOUT, silent)
        elif first and self.pid and first.waited > first.request.patience:
            self._end(ErrorKind.TIMEOUT, f"Nothing has moved for {first.waited:.0f} s; run it again.")

    def _cause_of_death(self, child: Child) -> tuple[ErrorKind, str]:
        if self._last_words:
            return self._last_words.kind, self._last_words.message
        return child.cause_of_death(self.pid)

    def _end(self, kind: ErrorKind, text: str) -> None:
        """Make sure that the process is gone, and tell every request."""
        self._failed |= kind is not ErrorKind.CANCELLED
        self._kill()
        self._own += [(number, self._failure(kind, text)) for number in self._pending or [None]]
        self._pending = {}

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill(self.pid)

    def _failure(self, kind: ErrorKind, text: str) -> Failed:
        return Failed(kind, text, str(self.log_path or ""))

    def _take_own(self) -> list[Answer]:
        own, self._own = self._own, []
        return own
