"""The command as a user meets it: exit status, one-line errors, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib.cli import main
from SAMMixLib.config import PRESETS, Config
from SAMMixLib.data.phantom import make_phantom


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    path = tmp_path_factory.mktemp("ct") / "ct.nii.gz"
    phantom = make_phantom(seed=1, size=(256, 256, 10))
    sitk.WriteImage(phantom.ct, str(path))
    sitk.WriteImage(phantom.liver, str(path.with_name("liver.nii.gz")))
    return path


def figures(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_segment_writes_mask_and_report(ct, tmp_path, capsys):
    output, report = tmp_path / "liver.seg.nrrd", tmp_path / "report"
    assert main(["segment", str(ct), "-o", str(output), "--report", str(report), "--json"]) == 0
    found = figures(capsys)
    assert found["volume_ml"] > 500 and found["output"] == str(output)
    image = sitk.ReadImage(str(output))
    assert image.GetMetaData("Segment0_Name") == "liver" and "SCT^10200004^Liver" in image.GetMetaData("Segment0_Tags")
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "data:image/" in page and "http://" not in page and "https://" not in page


@pytest.mark.slow
def test_evaluate_masks_and_models(ct, tmp_path, capsys):
    reference = str(ct.with_name("liver.nii.gz"))
    assert main(["evaluate", "--masks", reference, "--references", reference, "--json"]) == 0
    found = figures(capsys)
    assert found["summary"]["volume_dice"]["value"] == 1
    assert found["provenance"]["prompt"] == "not stated", "a file does not say what prompted it"
    output = tmp_path / "scores"
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    shutil.copy(ct, pairs / "x_ct.nii.gz")
    shutil.copy(reference, pairs / "x_liver.nii.gz")
    arguments = ["evaluate", "--data", str(pairs), "--split", "phantom", "-o", str(output), "--json"]
    for prompt in ("cam", "oracle"):
        assert main([*arguments, "--prompt", prompt]) == 0
        found = figures(capsys)
        assert found["provenance"]["prompt"] == prompt and found["summary"]["liver_slice_dice"]["value"] > 0.8
    assert (output / "slices.csv").read_text().count("\n") == 11


@pytest.mark.slow
def test_models_demo_and_config(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path))
    assert main(["models", "list"]) == 0 and "starter" in capsys.readouterr().out
    assert main(["models", "verify", "starter"]) == 0
    assert main(["models", "remove", "starter"]) == 2
    assert main(["models", "show", "nobody"]) == 2
    error = capsys.readouterr().err
    assert "nobody: no model" in error and error.count("\n") == 2
    assert main(["train", "--print-config", "--preset", "paper"]) == 0
    assert Config.from_dict(json.loads(capsys.readouterr().out)) == PRESETS["paper"]


def bad_inputs(folder):
    """Files that are no CT, each with a word that the error must hold."""
    air = np.full((4, 16, 16), -1000, np.int16)
    air[:, 4:12, 4:12] = 40

    def write(name, array, spacing=(1.0, 1.0, 1.0), vector=False):
        image = sitk.GetImageFromArray(array, isVector=vector)
        if image.GetDimension() == 3:
            image.SetSpacing(spacing)
        sitk.WriteImage(image, str(folder / name))
        return folder / name

    whole = write("whole.nrrd", air).read_bytes()
    truncated, empty, text = folder / "truncated.nrrd", folder / "empty.nii.gz", folder / "text.nii.gz"
    truncated.write_bytes(whole[: len(whole) // 2])
    empty.write_bytes(b"")
    text.write_text("this is no volume")
    return [
        folder / "missing.nii.gz",
        truncated,
        empty,
        text,
        write("flat.nrrd", air[0]),
        write("series.nrrd", np.stack([air, air])),
        write("colour.nrrd", np.stack([air] * 3, axis=-1), vector=True),
    ]


def test_bad_input_is_one_line_and_status_2_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    for path in bad_inputs(tmp_path):
        assert main(["segment", str(path), "-o", str(tmp_path / "out" / "mask.nii.gz")]) == 2, path
        error = capsys.readouterr().err
        assert error.startswith("sammix: error: ") and error.count("\n") == 1 and path.name in error
    assert not list((tmp_path / "out").iterdir())


def test_outputs_are_checked_before_the_work(ct, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for output, more in (
        (tmp_path / "missing" / "mask.nii.gz", []),
        (tmp_path / "mask.png", []),
        (tmp_path, []),
        (tmp_path / "mask.nrrd", ["--report", str(tmp_path / "no" / "report")]),
        (tmp_path / "mask.nrrd", ["--report", str(tmp_path / "file")]),
        (tmp_path / "mask.nrrd", ["--device", "cuda:99"]),
        (tmp_path / "mask.nrrd", ["--model", "nobody"]),
    ):
        assert main(["segment", str(ct), "-o", str(output), *more]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_odd_files_of_the_real_data(shared_data, tmp_path, capsys):
    refused = ["shear.nii.gz", "complex.nii.gz", "ct_perfusion.nii.gz", "ge_irregular_dicom", "single_slice_mr.dcm",
               "enhanced_multiframe_mr.dcm", "dcmqi_liver_dicomseg.dcm", "dcmqi3_liver.nii.gz"]  # fmt: skip
    for name in refused:
        assert main(["segment", str(shared_data / "odd" / name), "-o", str(tmp_path / "mask.nrrd")]) == 2, name
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert main(["segment", str(shared_data / "odd" / "mr_abdomen.nii.gz"), "-o", str(tmp_path / "mask.nrrd")]) == 0
    assert "warning" in capsys.readouterr().err


KILLED = """
import contextlib, os, signal, sys
from SAMMixLib import cli
from SAMMixLib.commands import segment

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

@contextlib.contextmanager
def deadly_bar():
    yield lambda stage, done, total: die() if stage == "segment slices" else None

if sys.argv.pop(1) == "segmenting":
    segment.progress_bar = deadly_bar
else:
    import SAMMixLib.files

    SAMMixLib.files.os.replace = die
cli.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
@pytest.mark.parametrize("moment", ["segmenting", "writing"])
def test_kill_9_leaves_the_output_as_it_was(ct, tmp_path, moment):
    output = tmp_path / "mask.nii.gz"
    output.write_text("older")
    command = [sys.executable, "-c", KILLED, moment, "segment", str(ct), "-o", str(output), "--overwrite"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert output.read_text() == "older"


def interrupted(options):
    raise KeyboardInterrupt


def unreachable(options):
    raise PermissionError(13, "Permission denied", "/some/where")


def test_interrupts_and_refusals_of_the_system_have_their_status(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path))
    for run, status, words in ((interrupted, 130, "cancelled"), (unreachable, 2, "/some/where: Permission denied")):
        monkeypatch.setattr("SAMMixLib.commands.models._list", run)
        assert main(["models", "list"]) == status
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--data", "{data}", "--hu-range", "160", "-40"],
        ["evaluate", "--data", "{data}", "--device", "meta"],
        ["segment", "{ct}", "-o", "{out}/mask.nrrd", "--base-weights", "{ct}"],
        ["train", "--data", "{data}", "-o", "{out}/run", "--labelled", "10000"],
        ["train", "--data", "{data}", "-o", "{out}/run", "--seed", "-1"],
    ],
)
def test_bad_values_are_one_line_and_leave_nothing(ct, tmp_path, capsys, arguments):
    out, data = tmp_path / "out", tmp_path / "data"
    out.mkdir()
    data.mkdir()
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[2:, 8:16, 8:16] = 1
    for patient in ("a", "b"):
        np.savez(data / f"{patient}.npz", image=masks * 100, mask=masks, slice=np.arange(4))
    assert main([part.format(data=data, ct=ct, out=out) for part in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sammix: error: ") and error.count("\n") == 1
    assert not list(out.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_demo_on_a_full_disk_is_one_line_and_leaves_no_scan(tmp_path):
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from SAMMixLib.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # coverage writes, too
    command = [sys.executable, "-c", limited, "demo", "-o", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=own)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "phantom_ct.nii.gz: not written" in run.stderr
    assert not list(tmp_path.iterdir())


def test_usage_error_is_status_2():
    run = subprocess.run([sys.executable, "-m", "SAMMixLib", "segment"], capture_output=True, env=os.environ)
    assert run.returncode == 2
