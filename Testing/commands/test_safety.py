"""No command destroys what it reads or what is not ours; odd surroundings end in a mask or in one line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMixLib.data.phantom import make_phantom

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="limits, locales and descriptors of POSIX")

MANY = """
import json, sys
from SAMMixLib.cli import main
done = [main(arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([done, "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ct") / "ct.nii.gz"
    phantom = make_phantom(0, (96, 96, 14), (3.875, 3.875, 15.0))
    sitk.WriteImage(phantom.ct, str(path))
    sitk.WriteImage(phantom.liver, str(path.with_name("liver.nii.gz")))
    return path


def sums(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def refused(commands: list[list], folder: Path) -> list[str]:
    """The errors of commands that must be refused, one line each, before torch is imported and with nothing changed."""
    before = sums(folder)
    arguments = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", MANY, arguments], capture_output=True, text=True, check=True)
    statuses, torch = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [2] * len(commands), done.stderr
    assert not torch, "refused before any work"
    assert sums(folder) == before
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands) and all(line.startswith("sammix: error: ") for line in lines), done.stderr
    return lines


@pytest.mark.slow
def test_no_command_replaces_its_input_or_what_is_not_ours(ct, tmp_path):
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(ct.read_bytes())
    other, folder = tmp_path / "other.nii.gz", tmp_path / "data"
    other.write_bytes(ct.read_bytes())
    folder.mkdir()
    np.savez(folder / "a.npz", image=np.zeros((2, 8, 8), np.uint8), mask=np.zeros((2, 8, 8), np.uint8), slice=[0, 1])
    report, demo, scores = (tmp_path / name for name in ("report", "demo", "scores"))
    cohort, tables, run = (tmp_path / name for name in ("cohort", "tables", "run"))
    for where, name in (
        (report, "report.html"),
        (demo, "phantom_ct.nii.gz"),
        (scores, "evaluation.json"),
        (cohort, "results.csv"),
        (tables, "table1.md"),
        (run, "log.jsonl"),
    ):
        where.mkdir()
        (where / name).write_text("somebody's own")
    (tmp_path / "model.zip").write_text("somebody's own")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.txt").write_text("somebody's own")
    new, long = tmp_path / "new.nrrd", tmp_path / ("n" * 300)
    (tmp_path / "scans.csv").write_text(f"path\n{scan}\n")
    (cohort / "left_out.csv").write_text(f"path,reason\n{scan},none\n")  # as ours would be, and to be read
    cases = {
        "is the input itself": ["segment", scan, "-o", scan],
        "the input itself": ["segment", scan, "-o", scan, "--overwrite"],
        "other.nii.gz: is there and not written by SAMMix": ["segment", scan, "-o", other],
        "report.html: is there and not written by SAMMix": ["segment", scan, "-o", new, "--report", report],
        "phantom_ct.nii.gz: is there and not written by SAMMix": ["demo", "-o", demo],
        "evaluation.json: is there and not written by SAMMix": ["evaluate", "--data", folder, "-o", scores],
        "data: is the input folder itself": ["evaluate", "--data", folder, "-o", folder],
        "data: is the input folder": ["segment", folder, "-o", new, "--report", folder],
        "scan.nii.gz": ["collect", scan, "--slices", "1", "--set", scan],
        "set: ": ["collect", scan, "--slices", "1", "--set", tmp_path / "set"],
        "model.zip: is there and no exported model": ["models", "export", "starter", tmp_path / "model.zip"],
        "results.csv: is there and not written by SAMMix": ["cohort", tmp_path / "scans.csv", "-o", cohort],
        "left_out.csv: is the input itself": ["cohort", cohort / "left_out.csv", "-o", cohort, "--overwrite"],
        "table1.md: is there and not written by SAMMix": ["experiment", "-o", tables],
        "exists already": ["train", "--data", folder, "-o", run],
        "too long": ["segment", scan, "-o", f"{long}.nrrd"],
        "name is too long": ["segment", scan, "-o", new, "--report", long],
        "(File name too long)": ["demo", "-o", long],
        "nn: the name is too long": ["evaluate", "--data", folder, "-o", long],
        ".zip: the name is too long": ["models", "export", "starter", f"{long}.zip"],
    }
    for words, line in zip(cases, refused(list(cases.values()), tmp_path), strict=True):
        assert words in line


@pytest.mark.slow
@POSIX
def test_a_mask_in_whatever_surroundings(ct, tmp_path):
    """No stderr, a stdout of ASCII, the locale C, a notebook's backend, and names that are not UTF-8."""
    scan = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4.nii.gz"))
    try:
        scan.write_bytes(ct.read_bytes())
    except OSError:
        scan = tmp_path / "a.nii.gz"
        scan.write_bytes(ct.read_bytes())
    output = scan.with_name(scan.name.replace(".nii.gz", "-mask.nii.gz"))
    odd = os.environ | {
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    program = [sys.executable, "-m", "SAMMixLib", "segment"]
    command = [*program, str(scan), "-o", str(output), "--report", str(tmp_path / "r")]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], env=odd, capture_output=True)
    assert done.returncode == 0, done.stdout
    assert b"ml in slices" in done.stdout and done.stdout.isascii()
    assert output.is_file() and (tmp_path / "r" / "report.html").is_file()


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("megabytes", [600, 1500])
def test_memory_that_runs_out_while_torch_loads_is_one_line(ct, tmp_path, megabytes):
    limited = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({megabytes} << 20, {megabytes} << 20));"
        "import sys; from SAMMixLib.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, "segment", str(ct), "-o", str(tmp_path / "mask.nrrd")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "not enough memory" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_of_ours_is_one_line_and_no_traceback(monkeypatch, capsys):
    from SAMMixLib.cli import main

    def broken(options):
        raise ZeroDivisionError("of ours\nindeed")

    monkeypatch.setattr("SAMMixLib.commands.models._list", broken)
    monkeypatch.delenv("SAMMIX_TRACEBACK", raising=False)
    assert main(["models", "list"]) == 1
    error = capsys.readouterr().err
    assert (
        error.startswith("sammix: error: internal error: ZeroDivisionError: of ours indeed") and error.count("\n") == 1
    )
    monkeypatch.setenv("SAMMIX_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["models", "list"])


@pytest.mark.slow
def test_doubt_reaches_stderr_json_and_report(ct, tmp_path, capsys):
    from SAMMixLib.cli import main

    image = sitk.ReadImage(str(ct)) + 1024
    sitk.WriteImage(image, str(tmp_path / "raw.nii.gz"))
    arguments = [
        "segment",
        str(tmp_path / "raw.nii.gz"),
        "-o",
        str(tmp_path / "m.nrrd"),
        "--report",
        str(tmp_path / "r"),
    ]
    assert main([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert ("subtract 1024" in said.err and "look at the mask" in said.err) or "no liver found" in said.err
    warnings = json.loads(said.out.splitlines()[-1])["warnings"]
    assert len(warnings) >= 2 and all(warning in said.err for warning in warnings)
    assert "subtract 1024" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
