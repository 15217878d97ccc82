"""The model in the worker, and the scan whose embeddings it holds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from SAMMixLib.module.protocols import Worker
from SAMMixLib.module.session.conversation import Reply, WorkerConversation
from SAMMixLib.module.session.settings import AUTO, Settings
from SAMMixLib.structure import LIVER, Structure
from SAMMixLib.worker.protocol import AnswerT, Hello, Load, Loaded, Progressed, Request


class Engine:
    """Loads a model where it is not loaded yet, and asks it.

    Attributes:
        structure: what the loaded model segments.
        warm: the key of the case whose slices can be segmented again.
        reply: the question that is open, for who wants to cancel it; None without one.
    """

    def __init__(self, start_worker: Callable[[], Worker], settings: Settings):
        self._settings = settings
        self.conversation = WorkerConversation(start_worker, self._greeted)
        self.structure: Structure = LIVER
        self.warm = ""
        self.reply: Reply[Any] | None = None
        self._loaded: tuple[str, str] | None = None  # model and device

    @property
    def worker(self) -> Worker | None:
        return self.conversation.worker

    @property
    def folder(self) -> Path:
        """Where files go that the worker is to read."""
        assert self.worker is not None and self.worker.folder is not None
        return self.worker.folder

    def holds(self, model: str) -> bool:
        """Whether this model is loaded, on the device that is chosen."""
        return self.conversation.alive and self._loaded == (model, self._settings.device)

    def device_name(self) -> str:
        """The device that the next run uses: for auto, the first that the worker found."""
        if self._settings.device != AUTO:
            return self._settings.device
        return self._settings.devices[0]["name"] if self._settings.devices else "cpu"

    def start(self) -> None:
        """Make sure that there is a worker.

        Raises:
            SAMMixError: it cannot be started.
        """
        if self.conversation.ensure():
            self._forget()

    def begin_loading(self, model: str) -> None:
        """Start the worker where there is none, and ask it for the model where it does not hold it."""
        self.start()
        if not self.holds(model):
            self._forget()
            self.reply = self.conversation.ask(Load(model=model, device=self._settings.device))

    def finish_loading(self, model: str) -> Iterator[None]:
        """Wait for the model."""
        if self.reply is not None:
            wanted = (model, self._settings.device)
            loaded: Loaded = yield from self._wait(self.reply)
            self._loaded, self.structure = wanted, Structure.from_dict(loaded.structure, model)

    def ask(
        self, request: Request[AnswerT], progressed: Callable[[Progressed], None] = lambda message: None
    ) -> Generator[None, None, AnswerT]:
        """Ask, and wait; the generator's value is the answer.

        Raises:
            RequestFailed: there is none.
        """
        self.reply = reply = self.conversation.ask(request, progressed)
        return (yield from self._wait(reply))

    def close(self) -> None:
        """Let the worker go, with the model, its embeddings and their memory."""
        self.conversation.close()
        self._forget()

    def _wait(self, reply: Reply[AnswerT]) -> Generator[None, None, AnswerT]:
        try:
            return (yield from reply.wait())
        finally:
            if self.reply is not None and self.reply.settled:
                self.reply = None
            if not self.conversation.alive:
                self._forget()

    def _forget(self) -> None:
        self._loaded, self.warm = None, ""

    def _greeted(self, hello: Hello) -> None:
        self._settings.devices = hello.devices
