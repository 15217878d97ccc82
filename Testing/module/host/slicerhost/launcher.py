"""``PythonSlicer`` as the application ships it: a launcher that starts Python, waits, and gives back its exit status.

Killing the launcher leaves Python running, and a Python that dies by a signal is seen as exit status 1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SCRIPT = """#!/bin/sh
if [ -n "$SAMMIX_TEST_WORKER" ] && [ "$1 $2" = "-m SAMMixLib.worker" ]; then
  shift 2
  set -- "$SAMMIX_TEST_WORKER" "$@"
fi
"{python}" "$@"
status=$?
[ $status -gt 127 ] && status=1
exit $status
"""
QUICK = str(Path(__file__).with_name("quick_worker.py"))


def install(folder: Path) -> None:
    """Put the launcher on the path, where the module looks for it."""
    launcher = folder / "PythonSlicer"
    launcher.write_text(SCRIPT.replace("{python}", sys.executable))
    launcher.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def choose_worker(quick: bool) -> bool:
    """Start the quick worker from now on, or the real one; whether that is a change."""
    before = os.environ.get("SAMMIX_TEST_WORKER", "")
    os.environ["SAMMIX_TEST_WORKER"] = QUICK if quick else ""
    return os.environ["SAMMIX_TEST_WORKER"] != before
