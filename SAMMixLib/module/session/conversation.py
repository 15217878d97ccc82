"""One worker process and what is asked of it: who uses it thinks in questions and replies, not in messages."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from SAMMixLib.module.protocols import Worker
from SAMMixLib.worker.protocol import AnswerT, ErrorKind, Failed, Hello, Message, Progressed, Reported, Request


class RequestFailed(Exception):
    """The worker did not do what it was asked, or is gone."""

    def __init__(self, failure: Failed):
        super().__init__(failure.message)
        self.cancelled = failure.kind is ErrorKind.CANCELLED
        self.log = Path(failure.log) if failure.log else None


@dataclass
class Reply(Generic[AnswerT]):
    """What comes of one question."""

    number: int
    progressed: Callable[[Progressed], None]
    reported: Callable[[Reported], None]
    answer: AnswerT | None = None
    failure: Failed | None = None

    @property
    def settled(self) -> bool:
        return self.answer is not None or self.failure is not None

    def result(self) -> AnswerT:
        """The answer, once it is settled.

        Raises:
            RequestFailed: there is none.
        """
        if self.failure is not None:
            raise RequestFailed(self.failure)
        assert self.answer is not None
        return self.answer

    def wait(self) -> Generator[None, None, AnswerT]:
        """Yields until it is settled; the generator's value is the answer."""
        while not self.settled:
            yield
        return self.result()


class WorkerConversation:
    """Starts a worker when one is needed, asks it, and brings each message to the reply that it belongs to.

    Attributes:
        worker: the client of the process; None without one.
        greeted: called with each :class:`~SAMMixLib.worker.protocol.Hello`.
    """

    def __init__(self, start_worker: Callable[[], Worker], greeted: Callable[[Hello], None] = lambda hello: None):
        self.worker: Worker | None = None
        self.greeted = greeted
        self._start_worker = start_worker
        self._replies: dict[int, Reply[Any]] = {}
        self._loss = Failed(ErrorKind.CANCELLED, "Cancelled.")  # why there is no worker

    @property
    def alive(self) -> bool:
        return self.worker is not None and self.worker.alive

    @property
    def ready(self) -> bool:
        """Whether the worker has said hello."""
        return self.worker is not None and self.worker.alive and self.worker.pid is not None

    def ensure(self) -> bool:
        """Make sure that there is a worker; whether it is a new one, which holds nothing.

        Raises:
            SAMMixError: it cannot be started.
        """
        if self.alive:
            return False
        self.close()
        self.worker = self._start_worker()
        self.worker.start()
        return True

    def ask(
        self,
        request: Request[AnswerT],
        progressed: Callable[[Progressed], None] = lambda message: None,
        reported: Callable[[Reported], None] = lambda message: None,
    ) -> Reply[AnswerT]:
        """Ask the worker; :meth:`poll` settles the reply. Where the worker is gone, it has failed as that has."""
        if self.worker is None:
            return Reply(0, progressed, reported, failure=self._loss)
        reply = Reply(self.worker.request(request), progressed, reported)
        self._replies[reply.number] = reply
        return reply

    def cancel(self, reply: Reply) -> None:
        """End a question; the reply is settled by it, within two seconds."""
        if self.worker is not None:
            self.worker.cancel(reply.number)

    def poll(self) -> None:
        """Take what has come. A process that ended by itself is closed, and every reply has failed."""
        if self.worker is None:
            return
        for number, message in self.worker.poll():
            if isinstance(message, Hello):
                self.greeted(message)
            elif isinstance(message, Failed) and not self.alive:
                self._lose(message)
                return
            elif number in self._replies:
                self._settle(self._replies[number], message)

    def close(self) -> None:
        """End the process. Replies that wait have failed as cancelled."""
        self._lose(Failed(ErrorKind.CANCELLED, "Cancelled."))

    def _settle(self, reply: Reply, message: Message) -> None:
        if isinstance(message, Progressed):
            reply.progressed(message)
        elif isinstance(message, Reported):
            reply.reported(message)
        else:
            del self._replies[reply.number]
            if isinstance(message, Failed):
                reply.failure = message
            else:
                reply.answer = message

    def _lose(self, loss: Failed) -> None:
        worker, self.worker = self.worker, None
        self._loss = loss
        for reply in self._replies.values():
            reply.failure = loss
        self._replies.clear()
        if worker is not None:
            worker.close()
