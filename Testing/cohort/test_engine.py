"""The model that a worker of the cohort loads; the other tests of the room have a stub in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from SAMMixLib.cohort.engine import ModelSource
from SAMMixLib.cohort.records import model_hash
from SAMMixLib.errors import SAMMixError
from SAMMixLib.models.registry import find_model


@pytest.fixture(scope="module")
def source():
    folder = find_model("starter")
    return ModelSource(str(folder), model_hash(folder), device="cpu", dtype="float32", batch_size=3)


def test_the_starter_loads_as_the_source_says(source):
    segmenter = source.load()
    assert segmenter.name == "starter"
    assert (segmenter.runtime.precision, segmenter.runtime.batch_size) == ("float32", 3)
    assert segmenter.device.type == "cpu"


def test_another_model_than_the_expected_is_refused(source):
    with pytest.raises(SAMMixError, match="another model"):
        replace(source, sha256="0" * 64).load()


@pytest.mark.slow
def test_the_process_of_scheduler_and_client_loads_no_torch():
    """Only workers segment; torch would cost the command seconds and hundreds of MB before the first scan."""
    script = """
import sys
import SAMMixLib.commands.cohort, SAMMixLib.cohort.run
from SAMMixLib.cohort.records import model_hash
from SAMMixLib.models.registry import find_model
assert len(model_hash(find_model("starter"))) == 64
assert "torch" not in sys.modules
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
