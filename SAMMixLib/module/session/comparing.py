"""What another model makes of a scan, beside what is there: from the click to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeGuard, TypeVar

from SAMMixLib.module import texts
from SAMMixLib.module.protocols import Case
from SAMMixLib.module.session.segment_view import progress_look
from SAMMixLib.module.session.session import Session

CaseT = TypeVar("CaseT", bound=Case)  # the scene's own kind of case, which make_case and compare know


class Comparison(Generic[CaseT]):
    """Runs one comparison at a time in a session; :meth:`tick` goes with the session's own.

    A panel asks :meth:`may_begin`, then calls :meth:`begin`, and shows :attr:`text` whatever happens.

    Args:
        make_case: a case of the same scan whose segmentation takes the result of the model of this name.
        compare: Dice between two cases, and in words the slices in which they differ most.

    Attributes:
        text: what to show: why it does not begin, how far it is, or what came of it.
        other: the case with the other model's result; None before there is one.
    """

    def __init__(
        self,
        session: Session,
        make_case: Callable[[CaseT, str], CaseT],
        compare: Callable[[CaseT, CaseT], tuple[float, str]],
    ):
        self.text = ""
        self.other: CaseT | None = None
        self._session, self._make_case, self._compare = session, make_case, compare
        self._running: tuple[CaseT, CaseT, str] | None = None  # both cases, and the model's name

    @property
    def running(self) -> bool:
        return self._running is not None

    def may_begin(self, case: CaseT | None) -> TypeGuard[CaseT]:
        """Whether there is something to compare with; else :attr:`text` says what is missing."""
        if case is None or not case.has_segment():
            self.text = "Segment a scan first: the result is compared with what is there."
        elif self._session.busy:
            self.text = "Wait until the running segmentation is through."
        else:
            return True
        return False

    def begin(self, case: CaseT, model: str) -> None:
        """Segment the scan with the model, into a segmentation of its own."""
        self.other = other = self._make_case(case, model)
        self._running = (case, other, model)
        self._session.segment(other, other_model=model)
        self.tick()

    def cancel(self) -> None:
        """Stop it; the scene stays as it is."""
        if self.running:
            self._session.cancel()

    def tick(self) -> None:
        """Say how far it is, and what came of it."""
        if self._running is None:
            return
        if self._session.busy:
            self.text = progress_look(self._session)["format"]
            return
        (case, other, model), self._running = self._running, None
        if self._session.error or not other.has_segment():
            self.text = self._session.error or "Cancelled."
            return
        dice, slices = self._compare(case, other)
        self.text = (
            f"Dice {texts.dice(dice)} between the scan's segmentation and that of {model}, which is shown in yellow; "
            f"they differ most in {slices}."
        )

    def clear(self) -> None:
        """Forget the last verdict, unless one is on its way."""
        if not self.running:
            self.text = ""
