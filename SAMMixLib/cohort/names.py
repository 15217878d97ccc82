"""Names that were met before: on disk, so that memory does not grow with the cohort."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from SAMMixLib.errors import SAMMixError


class KnownNames:
    """A set of texts in a private file of SQLite's, which the system removes when nobody needs it any more.

    >>> known = KnownNames(["a"])
    >>> known.add("b"), known.add("a")
    (True, False)
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = sqlite3.connect("", check_same_thread=False)
        self._names.execute("CREATE TABLE known (name TEXT PRIMARY KEY) WITHOUT ROWID")
        for name in names:
            self.add(name)

    def add(self, name: str) -> bool:
        """Note the name; whether it is new.

        Raises:
            SAMMixError: the disk of temporary files is full.
        """
        try:
            return self._names.execute("INSERT OR IGNORE INTO known VALUES (?)", (name,)).rowcount == 1
        except sqlite3.Error as error:
            raise SAMMixError(f"no more names can be noted in the folder of temporary files ({error})") from None
