"""The real worker with the starter model, from request to files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from worker_helpers import answer, answers, collect, is_running, posix, said_hello, wait_for

from SAMMixLib.cli import main
from SAMMixLib.data.phantom import make_phantom
from SAMMixLib.data.training_set import LabelledSlices, TrainingSet
from SAMMixLib.imaging.volume import Volume
from SAMMixLib.paths import starter_folder
from SAMMixLib.structure import LIVER
from SAMMixLib.worker.client import WorkerClient
from SAMMixLib.worker.protocol import (
    RESULTS_KEPT,
    ErrorKind,
    Failed,
    Load,
    Message,
    Request,
    Resegment,
    Resegmented,
    Segment,
    SliceBoxes,
    Stage,
    Suggest,
    Train,
    Unload,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prlimit")
SLICES = 10


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    """A phantom of ten slices of 2 mm: oblique, stored in sagittal slices, and not square in its axial ones."""
    rotation = sitk.Euler3DTransform()
    rotation.SetRotation(0.1, -0.05, 0.2)
    phantom = make_phantom(seed=3, size=(128, 100, 128), spacing=(2.9, 2.9, 2.5))
    image = sitk.Image(phantom.ct[:, :, 60 : 60 + SLICES])
    image.SetSpacing((2.9, 2.9, 2.0))
    image.SetDirection(rotation.GetMatrix())
    path = tmp_path_factory.mktemp("ct") / "ct.nrrd"
    sitk.WriteImage(sitk.DICOMOrient(image, "PIL"), str(path))
    return path


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with WorkerClient(folder=tmp_path_factory.mktemp("worker")) as client:
        yield client


@pytest.fixture
def worker(client):
    """With the starter loaded."""
    client.start()
    loaded = ask(client, CPU)
    assert (loaded.name, loaded.structure) == ("starter", LIVER.to_dict())
    return client


CPU = Load(device="cpu")


def ask(client: WorkerClient, request: Request) -> Message:
    result = answer(client, client.request(request), 120)
    assert not isinstance(result, Failed), result
    return result


def again(client: WorkerClient, boxes: dict[int, list | None]) -> Resegmented:
    """Correct slices of the scan that is held."""
    return ask(client, Resegment([SliceBoxes(k, each) for k, each in boxes.items()]))


def refused(client: WorkerClient, request: Request) -> Failed:
    error = answer(client, client.request(request), 120)
    assert isinstance(error, Failed) and error.message and "\n" not in error.message, error
    assert Path(error.log) == client.log_path and client.log_path.is_file()
    return error


def read(path: str | Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def stack_of(path: str | Path) -> np.ndarray:
    return Volume(sitk.ReadImage(str(path)), Path(path)).axial().array


def start_segmenting(client: WorkerClient, ct: Path) -> int:
    """The id of a request that has reached SAM."""
    request = client.request(Segment(str(ct)))
    collect(client, lambda _, message: getattr(message, "stage", None) is Stage.CLASSIFY, 60)
    return request


@pytest.mark.slow
def test_hello_tells_versions_and_devices(tmp_path):
    with WorkerClient(folder=tmp_path) as client:
        _, hello = collect(client, said_hello, 120)[-1]
        assert {"sammix", "python", "torch"} <= set(hello.versions) and hello.pid == client.pid
        assert [d["name"] for d in hello.devices][-1] == "cpu" and "thread" in hello.devices[-1]["text"]


@pytest.mark.slow
def test_the_mask_equals_the_command_lines_voxel_for_voxel(worker, ct, tmp_path):
    result = ask(worker, Segment(str(ct)))
    assert main(["segment", str(ct), "-o", str(tmp_path / "mask.nrrd"), "--device", "cpu"]) == 0
    mask, source = sitk.ReadImage(result.mask), sitk.ReadImage(str(ct))
    assert read(result.mask).any() and np.array_equal(read(result.mask), read(tmp_path / "mask.nrrd"))
    assert mask.GetPixelID() == sitk.sitkUInt8 and mask.GetSize() == source.GetSize()
    for get in (sitk.Image.GetOrigin, sitk.Image.GetSpacing, sitk.Image.GetDirection):
        np.testing.assert_allclose(get(mask), get(source), rtol=0, atol=1e-12)

    liver = stack_of(result.mask) > 0
    assert result.slices_total == SLICES == len(liver) == len(result.p_liver) == len(result.predicted_iou)
    np.testing.assert_allclose(result.area_mm2, liver.sum(axis=(1, 2)) * 2.9**2, rtol=1e-4)
    assert result.volume_ml == pytest.approx(liver.sum() * 2.9**2 * 2 / 1000)
    assert list(result.slice_range) == np.flatnonzero(liver.any(axis=(1, 2)))[[0, -1]].tolist()
    assert set(result.review) <= set(range(SLICES)) and result.seconds["total"] > 0
    assert (result.model, result.device) == ("starter", "cpu")
    assert "touches both ends of the scan" in result.warnings[-1]  # it is cut inside the liver
    for k, ((i0, j0, i1, j1),) in result.boxes.items():
        rows, columns = np.nonzero(liver[k])
        assert 0 <= i0 <= i1 < 128 and 0 <= j0 <= j1 < 100
        assert ((columns >= i0) & (columns <= i1) & (rows >= j0) & (rows <= j1)).mean() > 0.85

    cam = sitk.ReadImage(result.cam)
    assert cam.GetPixelID() == sitk.sitkUInt8 and cam.GetSize() == (256, 256, SLICES)
    peaks = sitk.GetArrayFromImage(cam).max(axis=(1, 2))
    assert all(peaks[k] == 255 for k in result.boxes)


@pytest.mark.slow
def test_a_slice_is_segmented_again_in_a_small_part_of_the_scans_time(worker, ct):
    started = time.perf_counter()
    first = ask(worker, Segment(str(ct)))
    whole = time.perf_counter() - started
    boxes = first.boxes
    encoded = [k for k in boxes if first.predicted_iou[k]]
    between = [k for k in boxes if not first.predicted_iou[k]]
    assert encoded and between  # of thin slices, SAM sees a part
    k, liver, before = encoded[len(encoded) // 2], stack_of(first.mask), len(os.listdir(worker.folder))

    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        same = again(worker, {k: boxes[k]})
        seconds.append(time.perf_counter() - started)
    mask = read(same.mask)
    assert min(seconds) < whole / 4 and same.slices == [k] and same.boxes == {k: boxes[k]}
    assert mask.shape == (1, *liver.shape[1:]), "of this slice and no other"
    assert (mask[0] != liver[k]).sum() < 0.02 * liver[k].sum()
    assert same.predicted_iou == pytest.approx([first.predicted_iou[k]], abs=0.02)

    i0, j0, i1, j1 = boxes[k][0]
    half = (i0, j0, (i0 + i1) // 2, j1)
    corrected = again(worker, {k: [half], between[0]: None, encoded[0]: []})
    mask = dict(zip(corrected.slices, read(corrected.mask), strict=True))
    assert corrected.slices == sorted([k, between[0], encoded[0]])
    assert not mask[k][:, half[2] + 1 :].any() and mask[k].sum() > 0.9 * liver[k, :, : half[2] + 1].sum() > 0
    np.testing.assert_allclose(corrected.boxes[between[0]], boxes[between[0]], atol=6)  # the classifier's own, now
    assert mask[between[0]].any()
    assert not mask[encoded[0]].any() and corrected.boxes[encoded[0]] == []
    np.testing.assert_allclose(corrected.area_mm2, [mask[k].sum() * 2.9**2 for k in corrected.slices], rtol=1e-4)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        again(worker, {between[0]: None})
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < whole / 4  # its embedding is kept since

    for _ in range(RESULTS_KEPT):
        last = again(worker, {k: []})
    assert not Path(same.mask).exists() and Path(last.mask).exists() and Path(first.cam).exists()
    assert len(os.listdir(worker.folder)) <= before + RESULTS_KEPT


@pytest.mark.slow
def test_given_slices_only(worker, ct):
    whole = ask(worker, Segment(str(ct)))
    ks = [8, 5]
    some = ask(worker, Segment(str(ct), ks))
    mask = stack_of(some.mask)
    assert mask[ks].any(axis=(1, 2)).all() and not np.delete(mask, ks, axis=0).any()
    assert some.p_liver == pytest.approx([whole.p_liver[k] for k in ks], abs=2e-3)
    np.testing.assert_allclose(some.area_mm2, mask[ks].sum(axis=(1, 2)) * 2.9**2, rtol=1e-4)
    assert set(some.boxes) == {5, 8} and some.slices_total == SLICES and all(some.predicted_iou)
    elsewhere = again(worker, {7: None})  # not classified before
    assert elsewhere.boxes[7] == whole.boxes[7] and read(elsewhere.mask).any()


@pytest.mark.slow
def test_bad_requests_are_refused_and_the_worker_lives_on(worker, ct, tmp_path):
    ask(worker, Unload())
    assert "model" in refused(worker, Segment(str(ct))).message
    assert refused(worker, Load("nobody")).kind is ErrorKind.INPUT
    ask(worker, CPU)
    assert "segment" in refused(worker, Resegment([])).message
    assert "missing.nrrd" in refused(worker, Segment(str(tmp_path / "missing.nrrd"))).message
    assert "slice 99" in refused(worker, Segment(str(ct), [99])).message
    ask(worker, Segment(str(ct), [7]))
    for k, boxes in ((SLICES, None), (-1, []), (7, [(5, 5, 4, 9)]), (7, [(0, 0, 128, 9)])):
        assert refused(worker, Resegment([SliceBoxes(k, boxes)])).kind is ErrorKind.INPUT
    for request, named in (
        (Segment(5), "segment: volume: 5 is no str"),
        (Resegment([SliceBoxes(1, [(1, 2)])]), "resegment: slices: boxes"),
    ):
        error = refused(worker, request)
        assert error.kind is ErrorKind.INTERNAL and named in error.message
    assert worker.idle


def test_a_damaged_model_is_refused_and_the_next_one_loads(worker, tmp_path):
    damaged = shutil.copytree(starter_folder(), tmp_path / "damaged")
    with (damaged / "decoder.safetensors").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"damage")
    error = refused(worker, Load(str(damaged)))
    assert error.kind is ErrorKind.INPUT and "decoder.safetensors" in error.message
    assert ask(worker, CPU).name == "starter"


@pytest.mark.slow
def test_cancel_ends_what_runs_and_what_waits_and_the_worker_stays(worker, ct):
    pid, request = worker.pid, start_segmenting(worker, ct)
    waiting = worker.request(Segment(str(ct)))
    time.sleep(0.2)  # in the encoder
    worker.cancel(request)
    worker.cancel(waiting)
    ended = [(n, m.kind) for n, m in collect(worker, answers(waiting)) if isinstance(m, Failed)]
    assert ended == [(request, ErrorKind.CANCELLED), (waiting, ErrorKind.CANCELLED)]
    assert worker.idle and worker.pid == pid
    assert ask(worker, Segment(str(ct), [7])).boxes


@pytest.mark.slow
@posix
def test_a_kill_during_a_run_is_reported_and_the_next_run_works(worker, ct):
    request, folder = start_segmenting(worker, ct), worker.folder
    os.kill(worker.pid, signal.SIGKILL)
    error = answer(worker, request)
    assert error.kind is ErrorKind.CRASH and not worker.alive
    worker.start()
    ask(worker, CPU)
    assert ask(worker, Segment(str(ct), [7])).boxes and worker.folder == folder


@pytest.mark.slow
@linux
def test_memory_that_runs_out_is_said_so_and_the_next_run_works(worker, ct):
    import resource

    held = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.prlimit(worker.pid, resource.RLIMIT_AS, (held + (2 << 20), resource.RLIM_INFINITY))
    error = refused(worker, Segment(str(ct)))
    resource.prlimit(worker.pid, resource.RLIMIT_AS, before)
    assert error.kind is ErrorKind.MEMORY and "emory" in error.message
    assert worker.alive and ask(worker, Segment(str(ct), [7])).boxes


@pytest.mark.slow
@linux
def test_a_full_disk_is_said_so_and_the_next_run_works(worker, ct):
    import resource

    before = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    error = refused(worker, Segment(str(ct), [7]))
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, before)
    assert error.kind is ErrorKind.DISK and str(worker.folder) in error.message and "MB free" in error.message
    assert worker.alive and ask(worker, Segment(str(ct), [7])).boxes


@pytest.mark.slow
@linux
def test_unload_returns_the_memory(tmp_path, ct):
    def held_mb() -> float:
        return int(Path(f"/proc/{client.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    with WorkerClient(folder=tmp_path) as client:
        collect(client, said_hello, 120)
        ask(client, CPU)  # so that all is imported
        ask(client, Unload())
        levels = [held_mb()]
        for _ in range(2):
            ask(client, CPU)
            ask(client, Segment(str(ct)))
            used = held_mb()
            ask(client, Unload())
            levels.append(held_mb())
    assert levels[2] < levels[1] + 20  # nothing piles up
    assert levels[1] < levels[0] * 1.15  # the first run pages in code, and torch keeps what it compiled
    assert used > levels[1] + 30


@pytest.mark.slow
@posix
def test_a_dead_parent_takes_the_worker_and_its_folder_along(tmp_path, ct):
    code = """import os, signal, sys, time
from SAMMixLib.worker.client import WorkerClient
from SAMMixLib.worker.protocol import Load, Segment
client = WorkerClient(folder=sys.argv[1])
client.start()
client.request(Load(device="cpu"))
client.request(Segment(sys.argv[2]))
while not any(getattr(m, "stage", "") == "classify slices" for _, m in client.poll()):
    time.sleep(0.01)
print(client.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(ct)], capture_output=True, text=True,
                         timeout=120)  # fmt: skip
    pid = int(run.stdout)
    assert wait_for(lambda: not is_running(pid), 3) and wait_for(lambda: not list(tmp_path.iterdir()), 1)


def test_only_messages_reach_stdout():
    code = """import os, sys
from SAMMixLib.worker.server import _take_pipes
source, sink = _take_pipes()
print("python prints", flush=True)
os.write(1, b"a library prints")
assert os.read(0, 10) == b""
sink.write(source.readline())"""
    run = subprocess.run([sys.executable, "-c", code], input=b"message\n", capture_output=True, timeout=60)
    assert run.stdout == b"message\n" and b"python prints" in run.stderr and b"a library prints" in run.stderr


@pytest.mark.slow
def test_suggestions_are_of_the_scan_that_is_held(worker, ct):
    ask(worker, Segment(str(ct)))
    first = ask(worker, Suggest([], 3))
    assert len(first.slices) == len(first.reasons) == 3 and set(first.slices) <= set(range(SLICES))
    assert all(first.reasons)
    assert first.slices[0] not in ask(worker, Suggest(first.slices[:1], 3)).slices
    ask(worker, Unload())
    assert "no scan is held" in refused(worker, Suggest([])).message


@pytest.mark.slow
def test_a_set_that_cannot_be_trained_on_is_told_in_a_line(worker, tmp_path):
    training_set = TrainingSet.create(tmp_path / "set")
    images = np.zeros((2, 64, 64), np.int16)
    training_set.add(LabelledSlices("CT", [1, 2], images, (1.0, 1.0), [True, True], np.ones(images.shape, np.uint8)))
    error = refused(worker, Train(str(training_set.folder), "starter", "quick", 0, str(tmp_path / "run")))
    assert error.kind is ErrorKind.INPUT and "add some that do not" in error.message
    assert not (tmp_path / "run").exists()
