"""The two ways a run ends early that are nobody's bug."""

from __future__ import annotations


class SAMMixError(Exception):
    """Bad input or bad usage. The message is one line: which file, what is wrong, what to do. Exit status 2."""


class Cancelled(Exception):
    """The user stopped the run. Exit status 130."""
