"""A short, seeded part of the study ``Testing/studies/fuzz.py``: every reader on some damaged inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[1] / "studies" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_damaged_inputs_end_in_a_value_or_in_one_line():
    command = [sys.executable, str(FUZZ), "--count", "380", "--seed", "17"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-1000:]
    assert "380 inputs, 0 faults" in done.stdout
