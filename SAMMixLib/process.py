"""Settings for a process of its own (command line, worker) that torch profits from on a CPU. Never for a host."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from contextlib import suppress
from threading import Thread

# Names from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def tune_process() -> None:
    """To be called before torch is imported.

    Waiting threads sleep: one busy neighbour slows spinning ones many times over. And on Linux freed memory stays with
    the process: by default glibc gives every large activation back and has the kernel clear its pages again for the
    next one, which took half of the encoder's time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["MPLBACKEND"] = "agg"  # a notebook leaves its own to its children, who have no such module
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 256 << 20)


def import_beside(name: str) -> None:
    """Import a module in a thread, while this one reads a file: torch takes seconds, most of them one core's.

    What goes wrong shows where the module is imported next.
    """

    def run() -> None:
        with suppress(Exception):
            importlib.import_module(name)

    if name not in sys.modules:
        Thread(target=run, name=f"import {name}").start()


def make_streams_safe() -> None:
    """Let no message end the process: there may be no stdout or stderr, or one that takes ASCII only."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def return_memory() -> None:
    """Give freed memory back to the system after all: what :func:`tune_process` keeps for the next large activation."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
