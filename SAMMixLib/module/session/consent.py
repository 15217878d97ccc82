"""Before a result is written: whose slices are there already, and what the user wants with them."""

from __future__ import annotations

from dataclasses import dataclass

from SAMMixLib.module import texts
from SAMMixLib.module.protocols import Case, User


@dataclass(frozen=True)
class Consent:
    """What a run may do with the slices that the user edited before it."""

    edited: set[int]
    keep: bool


def before_writing(user: User, case: Case, slices: list[int] | None) -> Consent | None:
    """Ask where something would be lost: the segmentation of another scan, or the user's edits in these slices.

    Args:
        slices: that are to be segmented; None for all.

    Returns:
        None where it is called off.
    """
    asked = set(range(case.size()[0]) if slices is None else slices)
    edited = set(case.edited_slices()) & asked
    if owner := case.foreign_owner():
        answer = user.choose(texts.foreign_question(owner))
        if answer == texts.NEW_SEGMENTATION:
            case.renew()
            return Consent(set(), keep=True)
        return Consent(edited, keep=False) if answer == texts.REPLACE else None
    answer = user.choose(texts.keep_question(sorted(edited), others=edited < asked)) if edited else texts.KEEP
    return None if answer == texts.CANCEL else Consent(edited, keep=answer == texts.KEEP)
