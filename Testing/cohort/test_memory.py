"""Memory does not grow with the cohort: what is alive after many rows is what was alive after some."""

from __future__ import annotations

import gc
import itertools
import sys
import tracemalloc

import pytest
from many_rows import StubPlugin, write_manifest

from SAMMixLib.cohort import run
from SAMMixLib.cohort.engine import ModelSource
from SAMMixLib.cohort.page import write_page
from SAMMixLib.cohort.records import Settings, new_record, stamp_of
from SAMMixLib.cohort.results import row_of, write_tables

FEW, MANY = 500, 2000
LOOKS = 5  # rows one after the other, of which the least is taken: what is under way comes and goes


@pytest.mark.slow
def test_rows_leave_nothing_in_the_process_of_scheduler_and_client(client, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CohortPlugin", StubPlugin)

    def blocks_alive(count):
        """Blocks of memory that Python holds after FEW rows, and after the last ones."""
        folder = tmp_path / str(count)
        folder.mkdir()
        alive, seen = {}, itertools.count(1)

        def watch(_record):
            number = next(seen)
            if FEW - LOOKS <= number < FEW or count - LOOKS <= number < count:
                gc.collect()
                alive[number] = sys.getallocatedblocks()

        settings = Settings(str(folder / "out"), model="stub", model_hash="0" * 64)
        source = ModelSource("", "0" * 64)
        run.run_cohort(write_manifest(folder, count), client, settings=settings, model=source, watch=watch)
        looks = [*alive.values()]
        return min(looks[:LOOKS]), min(looks[-LOOKS:])

    blocks_alive(FEW)  # what is imported, and Dask's bounded logs
    early, late = blocks_alive(MANY)
    print(f"{early} blocks after {FEW} rows, {late} after {MANY}")
    assert late - early < 2 * (MANY - FEW)  # a key that Dask keeps for each row takes seven


@pytest.mark.slow
def test_table_and_page_are_written_in_parts(tmp_path):
    settings = Settings(str(tmp_path), model="stub", model_hash="0" * 64)

    def peak(count):
        rows = (row_of(new_record(f"patient{n:06}/ct", stamp_of([]), settings)) for n in range(count))
        more = (row_of(new_record(f"patient{n:06}/ct", stamp_of([]), settings)) for n in range(count))
        tracemalloc.start()
        write_tables(rows, tmp_path)
        write_page(more, tmp_path, viewer=False)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(FEW)  # imports
    assert peak(4 * MANY) < 2 * peak(MANY)
