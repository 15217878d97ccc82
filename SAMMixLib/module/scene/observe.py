"""Observers of VTK objects that keep nothing alive, and that Python's garbage collector cannot break.

A closure over the object that it observes is a cycle through C++: once Python holds no other reference to the object,
the collector clears the closure while VTK still calls it. So an observer here knows its object by a weak reference
only, and gets it as the event's caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import vtk


class Watch:
    """Calls ``callback(caller)`` at each of the events of an object, until :meth:`stop`.

    The callback must not hold the object itself.
    """

    def __init__(self, observed, events: Iterable[int | str], callback: Callable[[Any], None]):
        self._callback = callback
        self._observed = vtk.vtkWeakReference()
        self._observed.Set(observed)
        self._tags = [observed.AddObserver(event, self._called) for event in events]

    def stop(self) -> None:
        """End it; nothing happens at a second call, or where the object is gone."""
        observed = self._observed.Get()
        if observed is not None:
            for tag in self._tags:
                observed.RemoveObserver(tag)
        self._tags = []

    def _called(self, caller, event) -> None:
        self._callback(caller)
