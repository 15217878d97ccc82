"""A cohort that needs no model: a stub finds the liver where the HU are those of one."""

from __future__ import annotations

import pytest

pytest.importorskip("distributed", reason="the extra [cohort] is not installed")
pytest.importorskip("pyarrow", reason="the extra [cohort] is not installed")
pytest.importorskip("pydicom", reason="the extra [cohort] is not installed")

from stub_model import HASH, stub_source

from SAMMixLib.cohort.records import Settings
from SAMMixLib.cohort.run import local_cluster, run_cohort


@pytest.fixture(scope="session")
def client():
    with local_cluster(1, "auto") as client:
        yield client


@pytest.fixture
def cohort(tmp_path, client):
    """Runs a cohort with the stub; ``calls`` counts what the model was asked."""
    calls = tmp_path / "calls"
    calls.mkdir()

    def run(source, sha256=HASH, **settings):
        wanted = Settings(str(tmp_path / "out"), model="stub", model_hash=sha256, **settings)
        return run_cohort(source, client, settings=wanted, model=stub_source(calls, sha256))

    run.calls, run.out = calls, tmp_path / "out"
    return run
