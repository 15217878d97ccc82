"""The public names of the library: light to import, complete, and used as the documentation says."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import SAMMixLib
from SAMMixLib.config import FINE_TUNING
from SAMMixLib.data.phantom import make_phantom

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARY = REPOSITORY / "SAMMixLib"
EXAMPLES = REPOSITORY / "docs" / "python-api.md"


def test_importing_the_library_loads_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import SAMMixLib; dir(SAMMixLib);"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) - sys.stdlib_module_names == {"SAMMixLib"}


def test_every_public_name_is_there():
    assert sorted(SAMMixLib.__all__) == sorted(name for names in SAMMixLib._HOMES.values() for name in names)
    for name in SAMMixLib.__all__:
        assert getattr(SAMMixLib, name) is not None
    assert set(SAMMixLib.__all__) <= set(dir(SAMMixLib))


def test_type_checkers_see_the_same_names_in_the_same_homes():
    tree = ast.parse(Path(SAMMixLib.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {node.module: tuple(alias.name for alias in node.names) for node in block.body}
    assert seen == SAMMixLib._HOMES


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        SAMMixLib.Segmentor  # noqa: B018


# Examples


@pytest.fixture(scope="module")
def scan_and_liver(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scan")
    phantom = make_phantom(size=(128, 128, 12))
    files = {folder / "scan.nii.gz": phantom.ct, folder / "liver.nii.gz": phantom.liver}
    for file, image in files.items():
        sitk.WriteImage(image, str(file))
    return [*files]


@pytest.fixture
def folder(scan_and_liver, tmp_path, monkeypatch) -> Path:
    """The working folder of an example: a CT, ``scan.nii.gz``, and the mask of its liver, ``liver.nii.gz``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMMIX_HOME", str(tmp_path / "home"))
    for file in scan_and_liver:
        shutil.copy(file, tmp_path)
    return tmp_path


def documented(path: Path, heading: str) -> list[str]:
    """The blocks of Python under a heading of a page."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", path.read_text(encoding="utf-8"), re.M | re.S).group(1)
    return [textwrap.dedent(block) for block in re.findall(r"\n\n((?:    [^\n]*\n|\n(?=    ))+)", section)]


@pytest.mark.slow
def test_five_lines_of_the_readme_segment_a_scan(folder):
    names: dict = {}
    (lines,) = documented(REPOSITORY / "README.md", "Python")
    assert len([line for line in lines.splitlines() if line]) <= 5
    exec(lines, names)
    assert names["result"].volume_ml > 500
    written = sitk.ReadImage("liver.seg.nrrd")
    assert written.GetSize() == names["ct"].image.GetSize() and sitk.GetArrayFromImage(written).any()


@pytest.mark.slow
def test_the_python_page_segments_scores_and_watches(folder, capsys):
    names: dict = {}
    for heading in ("Segment a scan", "Score it", "Watch and cancel", "Errors"):
        for block in documented(EXAMPLES, heading):
            exec(block.replace("make_phantom()", "make_phantom(size=(128, 128, 12))"), names)
    assert names["scores"].volumes[0]["dice"] > 0.9
    said = capsys.readouterr().out
    assert "segment slices" in said and said.endswith("missing.nii.gz: no such file or folder\n")


@pytest.mark.slow
def test_the_python_page_fine_tunes(folder, monkeypatch):
    short = dataclasses.replace(FINE_TUNING["quick"], steps=2, views=1)
    monkeypatch.setitem(FINE_TUNING, "quick", short)
    names: dict = {}
    exec(documented(EXAMPLES, "Segment a scan")[0], names)
    masks = sitk.GetArrayFromImage(sitk.ReadImage("liver.nii.gz"))
    ks = [*np.flatnonzero(masks.any(axis=(1, 2)))[[0, 2, 4]].tolist(), 0]
    exec(documented(EXAMPLES, "Fine-tune on a few slices")[0], names | {"ks": ks, "masks": masks[ks]})
    assert (folder / "runs" / "mine" / "bundle" / "sammix.json").is_file()


def modules_with_examples() -> list[str]:
    files = sorted(path for path in LIBRARY.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
    return [".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files]


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_in_docstrings_run(module, folder):
    """All of the library: an example knows the public names, numpy, and what its own module knows."""
    public = {name: getattr(SAMMixLib, name) for name in SAMMixLib.__all__} | {"np": np}
    examples = doctest.DocTestFinder(exclude_empty=True).find(import_module(module), extraglobs=public)
    said: list[str] = []
    tried = sum(doctest.DocTestRunner(verbose=False).run(each, out=said.append).attempted for each in examples)
    assert not said, "".join(said)
    assert tried >= (REPOSITORY / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8").count(">>> ")
