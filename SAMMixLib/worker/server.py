"""The side of the worker that holds the model. Its main thread works; one thread reads, one says that it is alive."""

from __future__ import annotations

import faulthandler
import os
import platform
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from SAMMixLib import __version__
from SAMMixLib.errors import Cancelled
from SAMMixLib.worker.folders import remove_if_dead
from SAMMixLib.worker.protocol import (
    HEARTBEAT_SECONDS,
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
    Stage,
    decode,
    encode,
)

if TYPE_CHECKING:
    from SAMMixLib.worker.requests import Workbench


def serve(folder: Path) -> None:
    """Answer requests until stdin ends or says quit; result files go into `folder`."""
    faulthandler.enable()
    server = _Server(folder, *_take_pipes())
    for work in (server.beat, server.listen):
        threading.Thread(target=work, daemon=True).start()
    server.work()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's two pipes. Whoever else reads stdin finds nothing; whoever prints, prints into the log."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


class _Server:
    def __init__(self, folder: Path, source: BinaryIO, sink: BinaryIO) -> None:
        self._folder, self._source, self._sink = folder, source, sink
        self._sending = threading.Lock()
        self._requests: queue.SimpleQueue[tuple[int, Request]] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._current: int | None = None

    def send(self, message: Message, number: int | None = None) -> None:
        self._write(encode(message, number))

    def _write(self, line: bytes) -> None:
        with self._sending:
            try:
                while line:
                    line = line[self._sink.write(line) :]
            except OSError:
                self._leave()

    def beat(self) -> None:
        while True:
            self.send(Heartbeat())
            time.sleep(HEARTBEAT_SECONDS)

    def listen(self) -> None:
        for line in self._source:
            try:
                number, message = decode(line) or (None, None)
            except ProtocolError as error:
                number, message = error.number, self._failure(ErrorKind.INTERNAL, f"Not understood: {error}")
            if isinstance(message, Quit):
                os._exit(0)
            elif number is None:
                print(f"not a request: {line[:200]!r}", file=sys.stderr)
            elif isinstance(message, Cancel):
                self._cancelled.add(number)
            elif isinstance(message, Request):
                self._requests.put((number, message))
            elif isinstance(message, Failed):
                self.send(message, number)
        self._leave()

    def _leave(self) -> None:
        """End at once, whatever runs: the client is dead, and nobody else looks after its folder."""
        for _ in range(20):
            if remove_if_dead(self._folder):
                break
            time.sleep(0.05)  # its pipes may end before its lock does
        os._exit(0)

    def work(self) -> None:
        try:
            import torch

            from SAMMixLib.inference.device import available_devices

            torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: self.check_cancelled())
            versions = {"sammix": __version__, "python": platform.python_version(), "torch": torch.__version__}
            self.send(Hello(os.getpid(), versions, available_devices()))
            from SAMMixLib.worker.requests import Workbench
        except Exception as error:
            traceback.print_exc()
            self.send(self._failure(ErrorKind.INTERNAL, f"The packages of the segmentation do not load: {error}"))
            os._exit(1)
        bench = Workbench(self._folder, self.report)
        while True:
            number, request = self._requests.get()
            self._write(self._answer(bench, number, request))

    def _answer(self, bench: Workbench, number: int, request: Request) -> bytes:
        from SAMMixLib.worker.errors import explain
        from SAMMixLib.worker.requests import answer

        self._current = number
        try:
            self.check_cancelled()
            line = encode(answer(bench, self.progress, request), number)
        except Cancelled:
            line = encode(self._failure(ErrorKind.CANCELLED, "Cancelled."), number)
        except Exception as error:
            traceback.print_exc()
            line = encode(self._failure(*explain(error, self._folder)), number)
        self._current = None
        self._cancelled.discard(number)
        return line

    def check_cancelled(self) -> None:
        """Before each layer of a network, too: one batch on a CPU can take longer than a cancel may."""
        if self._current in self._cancelled:
            raise Cancelled

    def progress(self, stage: str, done: int, total: int) -> None:
        self.check_cancelled()
        self.send(Progressed(Stage(stage), done, total), self._current)

    def report(self, figures: dict[str, Any]) -> None:
        self.check_cancelled()
        self.send(Reported(**figures), self._current)

    def _failure(self, kind: ErrorKind, text: str) -> Failed:
        return Failed(kind, " ".join(text.split()), str(self._folder.with_suffix(".log")))
