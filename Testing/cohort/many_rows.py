"""Rows of a manifest through the whole cohort with a stub in place of the work: time a row, and memory as they grow.

Usage: python Testing/cohort/many_rows.py ROWS FOLDER
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

import psutil

from SAMMixLib.cohort import run
from SAMMixLib.cohort.engine import ModelSource
from SAMMixLib.cohort.records import DONE, Settings, new_record, stamp_of
from SAMMixLib.cohort.tasks import CohortPlugin

LOOKS = (1_000, 10_000, 20_000, 50_000, 100_000)  # rows after which the memory is looked at


class StubPlugin(CohortPlugin):
    """Answers at once, as if the scan had been segmented."""

    def work(self, entry):
        record = new_record(entry.name, stamp_of([]), self.settings)
        return record | {
            "status": DONE, "volume_ml": 1400.0 + hash(entry.name) % 400, "mean_hu": 100.0, "quality": 0.93,
            "review": [3, 4], "first_slice": 1, "last_slice": 40, "slices": 60, "seconds": 0.0, "tries": 1, "ran": True,
            "path": entry.path, "patient": entry.patient, "outputs": {f"masks/{entry.name}.nii.gz": "0" * 64},
        }  # fmt: skip


def write_manifest(folder: Path, count: int) -> Path:
    table = folder / "manifest.csv"
    with table.open("w") as file:
        file.write("path,patient\n")
        for number in range(count):
            file.write(f"scans/patient{number // 2:06}/ct{number % 2}.nii.gz,patient{number // 2:06}\n")
    return table


def main(count: int, folder: Path) -> None:
    table = write_manifest(folder, count)
    here, memory, seen = psutil.Process(), {}, itertools.count(1)

    def watch(_record):
        number = next(seen)
        if number in LOOKS:
            memory[number] = round(here.memory_info().rss / 2**20, 1)
            print(f"{number} rows, {memory[number]} MiB", flush=True)

    run.CohortPlugin = StubPlugin
    settings = Settings(str(folder / "out"), model="stub", model_hash="0" * 64)
    with run.local_cluster(1) as client:
        began, processor = time.monotonic(), here.cpu_times()
        summary = run.run_cohort(table, client, settings=settings, model=ModelSource("", "0" * 64), watch=watch)
        ended = here.cpu_times()
        took = time.monotonic() - began
    used = ended.user + ended.system - processor.user - processor.system
    print(
        json.dumps(
            {
                "rows": count,
                "done": summary.counts[DONE],
                "wall_ms_a_row": round(1000 * took / count, 3),
                "scheduler_and_client_cpu_ms_a_row": round(1000 * used / count, 3),
                "memory_mib": memory | {"with table and page": round(here.memory_info().rss / 2**20, 1)},
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
