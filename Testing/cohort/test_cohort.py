"""Whole cohorts with a stub for the model: what is done once stays, and no scan takes another one down."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from distributed import Client, LocalCluster
from stub_model import HASH, stub_source, write_scan

from SAMMixLib.cohort.manifest import Entry
from SAMMixLib.cohort.pseudonyms import Pseudonyms
from SAMMixLib.cohort.records import (
    Place,
    Settings,
    new_record,
    read_record,
    stamp_of,
    stored_records,
    write_record,
)
from SAMMixLib.cohort.run import key_file, run_cohort, running_cluster
from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import remove_litter


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return {row["scan"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_folder_gives_a_mirrored_tree_a_table_and_reasons(cohort, tmp_path):
    source = tmp_path / "in"
    write_scan(source / "a" / "one.nii.gz")
    write_scan(source / "b" / "two.nrrd")
    (source / "b" / "broken.nii.gz").write_bytes(b"nothing")
    summary = cohort(source)
    rows = table(cohort.out)
    assert (summary.counts["done"], summary.counts["failed"]) == (2, 1), rows
    assert set(rows) == {"a/one", "b/two", "b/broken"}
    assert "broken.nii.gz" in rows["b/broken"]["reason"] and rows["b/broken"]["status"] == "failed"
    mask = sitk.ReadImage(str(cohort.out / rows["a/one"]["mask"]))
    assert sitk.GetArrayFromImage(mask).sum() == 8 * 8 * 10
    assert float(rows["a/one"]["volume_ml"]) == pytest.approx(8 * 8 * 10 * 20 / 1000)
    import pyarrow.parquet as parquet

    whole = parquet.read_table(cohort.out / "results.parquet").to_pylist()
    assert [row["scan"] for row in whole] == [*rows]
    assert (cohort.out / "thumbnails" / "a" / "one.png").is_file()


@pytest.mark.slow
def test_a_second_run_does_nothing_and_what_changed_is_run_again(cohort, tmp_path):
    source = tmp_path / "in"
    first, second = write_scan(source / "one.nii.gz"), write_scan(source / "two.nii.gz", seed=1)
    (source / "bad.nii.gz").write_bytes(b"nothing")
    cohort(source)
    assert cohort(source).counts["unchanged"] == 3
    assert (cohort.calls / "one.nii.gz").read_text() == "x"

    os.utime(first, (1, 1))  # another time, the same content
    write_scan(second, seed=3)
    assert cohort(source).counts["unchanged"] == 2
    assert (cohort.calls / "one.nii.gz").read_text() == "x" and (cohort.calls / "two.nii.gz").read_text() == "xx"

    mask = cohort.out / "masks" / "one.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-9])  # a mask that is not whole
    cohort(source)
    assert (cohort.calls / "one.nii.gz").read_text() == "xx"
    cohort(source, sha256="6" * 64)  # another model
    assert (cohort.calls / "one.nii.gz").read_text() == "xxx"


@pytest.mark.slow
def test_a_scan_that_kills_hangs_or_surprises_is_recorded_and_the_rest_goes_on(cohort, tmp_path):
    source = tmp_path / "in"
    for name in ("a", "hang", "kill", "surprise", "z"):
        write_scan(source / f"{name}.nii.gz")
    summary = cohort(source, deadline=20.0)
    rows = table(cohort.out)
    assert summary.counts == {"done": 2, "failed": 3, "unchanged": 0}
    assert "killed its worker on each of 3 tries" in rows["kill"]["reason"]
    assert "hung past its deadline" in rows["hang"]["reason"]
    assert "ValueError: nobody thought of this" in rows["surprise"]["reason"]
    asked = {name: len((cohort.calls / f"{name}.nii.gz").read_text()) for name in ("kill", "hang", "surprise")}
    assert asked == {"kill": 3, "hang": 1, "surprise": 3}
    assert not (cohort.out / ".tries").exists() and not (cohort.out / ".beside").exists()


@pytest.mark.slow
def test_pseudonyms_leave_no_name_in_the_results(cohort, tmp_path):
    source = tmp_path / "in"
    write_scan(source / "Mueller_Anna" / "ct_19500101.nii.gz")
    (source / "Mueller_Anna" / "bad_19500101.nii.gz").write_bytes(b"nothing")
    cohort(source, anonymise=True)
    for file in cohort.out.rglob("*"):
        assert "Mueller" not in str(file.relative_to(cohort.out)) and "1950" not in str(file.relative_to(cohort.out))
        if file.is_file():
            content = file.read_bytes()
            assert b"Mueller" not in content and b"19500101" not in content and str(source).encode() not in content
    key = key_file(cohort.out).read_text()
    assert "Mueller_Anna" in key and key_file(cohort.out).stat().st_mode & 0o077 == 0
    assert cohort(source, anonymise=True).counts["unchanged"] == 2


@pytest.mark.slow
def test_manifest_names_its_scans_and_rows_without_a_file_fail(cohort, tmp_path):
    write_scan(tmp_path / "in" / "one.nii.gz")
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "path,patient,name\nin/one.nii.gz,P1,first\nin/none.nii.gz,P2,\n,P3,\n../x.nii.gz,P4,../../up\n"
    )
    cohort(manifest)
    rows = table(cohort.out)
    assert rows["first"]["status"] == "done" and rows["first"]["patient"] == "P1"
    assert "no such file" in rows["in/none"]["reason"]
    assert set(rows) == {"first", "in/none", "row-3", "up"}
    with pytest.raises(SAMMixError, match="no column 'path'"):
        (tmp_path / "wrong.csv").write_text("file\nx\n")
        cohort(tmp_path / "wrong.csv")


def test_a_full_disk_is_a_reason_and_not_the_scans_last_word(tmp_path, monkeypatch):
    from SAMMixLib.cohort import tasks

    (tmp_path / "calls").mkdir()
    scan = write_scan(tmp_path / "one.nii.gz")
    settings = Settings(str(tmp_path / "out"), model_hash=HASH)

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("SAMMixLib.cohort.thumbnails.write_thumbnail", full)
        record = tasks.process_scan(Entry("one", str(scan)), settings, lambda: stub_source(tmp_path / "calls").load(0))
    assert record["status"] == "failed" and "No space left" in record["reason"] and not record["final"]
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    record = tasks.process_scan(Entry("one", str(scan)), settings, lambda: stub_source(tmp_path / "calls").load(0))
    assert record["status"] == "done" and read_record(Place(tmp_path / "out", "one"))["status"] == "done"


@pytest.mark.slow
def test_an_interrupted_run_keeps_the_table_of_what_is_done(cohort, tmp_path, client):
    source = tmp_path / "in"
    for number in range(3):
        write_scan(source / f"{number}.nii.gz")
    cohort(source)

    def stop(_record):
        raise KeyboardInterrupt

    settings = Settings(str(cohort.out), model="stub", model_hash=HASH)
    with pytest.raises(KeyboardInterrupt):
        run_cohort(source, client, settings=settings, model=stub_source(cohort.calls), watch=stop)
    assert set(table(cohort.out)) == {"0", "1", "2"}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a terminal's Ctrl-C as POSIX sends it")
def test_ctrl_c_in_a_terminal_leaves_the_table_and_the_next_run_goes_on(tmp_path):
    """The whole command with the starter; Ctrl-C reaches all processes of the group, the workers among them."""
    count = 6
    for number in range(count):
        phantom = make_phantom(number, size=(128, 128, 8))
        sitk.WriteImage(phantom.ct, str(tmp_path / f"{number}.nii.gz"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "SAMMixLib", "cohort", str(tmp_path), "-o", str(out), "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    begun = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not [*(out / "records").glob("*.json")] and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGINT)
    _, said = begun.communicate(timeout=120)
    assert begun.returncode == 130 and said.endswith("sammix: cancelled\n"), said
    before = {name for name, row in table(out).items() if row["status"] == "done"}
    assert before and len(before) < count
    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    figures = json.loads(again.stdout.splitlines()[-1])
    assert (figures["done"], figures["failed"]) == (count, 0)
    assert len(before) <= figures["unchanged"] < count, "a scan may be whole just after the table was written"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="starts dask's programs by their POSIX names")
def test_scheduler_and_workers_started_apart(tmp_path):
    """Scheduler and two workers in folders of their own; also what one task costs there."""
    source, calls = tmp_path / "in", tmp_path / "calls"
    calls.mkdir()
    for number in range(6):
        write_scan(source / f"{number}.nii.gz")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    begun = []

    def start(folder, *arguments):
        (tmp_path / folder).mkdir()
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
        begun.append(subprocess.Popen(command, cwd=tmp_path / folder, env=environment, stderr=subprocess.DEVNULL))

    address = tmp_path / "scheduler.json"
    try:
        start("s", "dask_scheduler", "--port", "0", "--scheduler-file", str(address), "--no-dashboard")
        for name in ("w1", "w2"):
            start(name, "dask_worker", "--scheduler-file", str(address), "--nthreads", "1", "--no-dashboard")
        end = time.monotonic() + 60
        while not (address.exists() and address.read_text()) and time.monotonic() < end:
            time.sleep(0.2)
        with running_cluster(json.loads(address.read_text())["address"]) as client:
            client.wait_for_workers(2, timeout=60)
            settings = Settings(str(tmp_path / "out"), model="stub", model_hash=HASH)
            summary = run_cohort(source, client, settings=settings, model=stub_source(calls))
    finally:
        for process in begun:
            process.terminate()
        for process in begun:
            process.wait(30)
    assert summary.counts["done"] == 6
    assert len({row["worker"] for row in table(tmp_path / "out").values()}) == 2


@pytest.mark.slow
def test_no_scheduler_there_is_one_line():
    with pytest.raises(SAMMixError, match="no Dask scheduler answers"):  # noqa: SIM117
        with running_cluster("tcp://127.0.0.1:1"):
            pass


def test_viewer_scan_holds_the_mask(tmp_path):
    import base64
    import gzip
    import json

    from SAMMixLib import read_volume
    from SAMMixLib.reports.viewer import write_viewer_scan

    volume = read_volume(write_scan(tmp_path / "one.nii.gz"))
    array = sitk.GetArrayFromImage(volume.image)
    mask = sitk.GetImageFromArray((array == 100).astype(np.uint8))
    mask.CopyInformation(volume.image)
    write_viewer_scan(volume, mask, tmp_path / "scan.js", key="</script>")
    text = (tmp_path / "scan.js").read_text()
    assert "</script>" not in text
    data = json.loads(text[text.index("{") : text.rindex("}") + 1])
    (tmp_path / "mask.nii").write_bytes(gzip.decompress(base64.b64decode(data["mask"])))
    (tmp_path / "ct.nii").write_bytes(gzip.decompress(base64.b64decode(data["ct"])))
    read = [
        sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / f"{n}.nii")), "LPS"))
        for n in ("mask", "ct")
    ]
    original = sitk.GetArrayFromImage(sitk.DICOMOrient(volume.image, "LPS"))
    assert np.array_equal(read[0] > 0, original == 100)
    assert np.abs(read[1] - np.clip(original, -200, 310)).max() <= 1


@pytest.mark.slow
def test_a_kill_while_the_tables_are_written_leaves_the_old_ones_and_no_litter(tmp_path):
    """A process is killed after the first row group of both tables is written."""
    script = """
import os, signal, sys
from pathlib import Path
from SAMMixLib.cohort.records import Settings, new_record, stamp_of
from SAMMixLib.cohort.results import ROWS_AT_ONCE, row_of, write_tables
def rows(count):
    for number in range(count):
        yield row_of(new_record(f"scan{number}", stamp_of([]), Settings(sys.argv[1])))
    if count > 3:
        os.kill(os.getpid(), signal.SIGKILL)
write_tables(rows(3), Path(sys.argv[1]))
write_tables(rows(2 * ROWS_AT_ONCE), Path(sys.argv[1]))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False)
    assert killed.returncode != 0
    import pyarrow.parquet as parquet

    assert [*table(tmp_path)] == ["scan0", "scan1", "scan2"]
    assert parquet.read_table(tmp_path / "results.parquet").num_rows == 3
    assert len([*tmp_path.iterdir()]) > 2
    remove_litter(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.parquet"]


def test_a_row_of_the_key_file_that_was_torn_is_written_anew(tmp_path):
    key = tmp_path / "out.key.csv"
    entry = Entry("one", "/a/one.nii.gz", patient="Anna")
    hidden = Pseudonyms(key)
    name = hidden.hide(entry).name
    whole = key.read_text()
    key.write_text(whole[:-9])
    again = Pseudonyms(key)
    assert again.hide(entry).name == name and key.read_text() == whole
    again.hide(entry)
    assert key.read_text() == whole


def test_records_of_an_interrupted_run_are_found_without_half_ones(tmp_path):
    for name in ("b/two", "a/one"):
        write_record(Place(tmp_path, name), new_record(name, stamp_of([]), Settings(str(tmp_path))))
    (tmp_path / "records" / "a" / "half.json").write_text('{"schema": 1, "scan"')
    assert [record["scan"] for record in stored_records(tmp_path)] == ["a/one", "b/two"]
    assert not [*(tmp_path / ".beside").iterdir()]


def test_a_cluster_without_workers_ends_the_run_and_fails_no_scan(tmp_path):
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster, Client(cluster) as client:
        cluster.scheduler.no_workers_timeout = 0.2
        write_scan(tmp_path / "in" / "one.nii.gz")
        settings = Settings(str(tmp_path / "out"), model="stub", model_hash=HASH)
        with pytest.raises(SAMMixError, match="workers are gone"):
            run_cohort(tmp_path / "in", client, settings=settings, model=stub_source(tmp_path))
    assert table(tmp_path / "out") == {}
