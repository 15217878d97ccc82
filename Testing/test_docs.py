"""The documentation tells the truth: links, commands, files, equations; and the code keeps to its own rules."""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import re
import shlex
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from SAMMixLib.cli import _parser
from SAMMixLib.config import Config
from SAMMixLib.models.card import dice_text, open_bundle
from SAMMixLib.paths import starter_folder

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARY = REPOSITORY / "SAMMixLib"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
SOURCES = sorted([*LIBRARY.rglob("*.py"), *(REPOSITORY / "SAMMix").glob("*.py")])
FOLDERS = ("SAMMixLib", "SAMMix", "Testing", "Resources", "docs", "typings")
README_LINES = 130
FILES_OUTSIDE_ROOMS = 10
FUNCTION_LINES, CLASS_LINES, PARAMETERS = 60, 250, 5

# What goes beyond these limits, each with its reason.
MANY_PARAMETERS = {
    "SAMMixLib/data/slices.py:read_slices": "what the readers of five formats want to know",
    "SAMMixLib/evaluation/evaluate.py:evaluate_slices": "what a score must name: data, prompt source, seed",
    "SAMMixLib/evaluation/evaluate.py:evaluate_volumes": "what a score must name: data, prompt source, seed",
    "SAMMixLib/networks/classifiers/resnet38.py:BasicBlock.__init__": "the measures of a layer, as torch's have them",
    "SAMMixLib/networks/classifiers/resnet38.py:stage": "the columns of the architecture's table",
    "SAMMixLib/networks/lora.py:fold_lora": "an adapter and the entries of its config",
    "SAMMixLib/networks/sam/backbone.py:Backbone.__init__": "the parts of SAM and their measures",
    "SAMMixLib/networks/sam/decoding.py:decode_masks": "the inputs of SAM's own mask decoder",
}
LONG_FUNCTIONS = {}
LONG_CLASSES = {}


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# Pages


def code_blocks(text: str) -> list[str]:
    """What stands indented by four spaces or more after an empty line, or between fences."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^|\n\n)((?:[ ]{4,}[^\n]*\n|\n(?=[ ]{4}))+)", text)
    return [*fenced, *indented]


def prose(text: str) -> str:
    for block in code_blocks(text):
        text = text.replace(block, "\n")
    return text


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text_of(page))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert file.is_relative_to(REPOSITORY), f"{page.name}: {target} lies outside"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target} has no such heading"


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), {REPOSITORY / "README.md"}
    while todo:
        page = todo.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", text_of(page))
        todo |= {(page.parent / link).resolve() for link in links if "://" not in link} - reached
    assert not set(PAGES) - reached - {REPOSITORY / "CONTRIBUTING.md"}  # GitHub links it


def test_the_readme_is_short():
    assert len(text_of(REPOSITORY / "README.md").splitlines()) <= README_LINES


def test_the_readme_and_the_starters_card_tell_one_figure():
    dice = dice_text(open_bundle(starter_folder()).dice)
    for page in ("README.md", "docs/model-card.md"):
        assert f"Dice per slice {dice} (95 %" in text_of(REPOSITORY / page), page


def test_the_readme_has_what_reviewers_of_the_extensions_index_ask_for():
    readme = text_of(REPOSITORY / "README.md")
    assert re.search(r"!\[[^]]+\]\(Resources/screenshots/", readme), "a picture"
    assert "| `SAMMix` |" in readme, "a line for each module"
    assert "## Citation" in readme and "docs/slicer.md" in readme and "CTLiver" in readme


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_pages_name_exist(page):
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[^`\s]*)`", text_of(page))
    assert not [name for name in named if not list(REPOSITORY.glob(name.split("::")[0].rstrip("/")))]


def test_messages_in_the_troubleshooting_exist():
    """Each message in the first column stands in the sources, whatever is filled in where three dots are."""
    sources = re.sub(r'"\s*\n\s*f?"', "", "\n".join(map(text_of, SOURCES)))  # strings over several lines
    sources = re.sub(r"\{[^{}]*\}", "...", sources)
    for page in (REPOSITORY / "README.md", REPOSITORY / "docs" / "troubleshooting.md"):
        for message in re.findall(r"^\| (?:in Slicer: )?`([^`]+)`", text_of(page), re.MULTILINE):
            parts = [part.strip() for part in message.replace("liver", "...").split("...")]
            assert all(part in sources for part in parts), f"{page.name}: {message}"


# Commands


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command with its parser, "models list" and the like included."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, of_verb in action.choices.items():
                yield from commands(of_verb, f"{name} {verb}".strip())


def command_lines(text: str) -> list[str]:
    """The arguments of each ``sammix`` in code blocks, without comments and what a shell takes."""
    lines = [line for block in code_blocks(text) for line in block.replace("\\\n", " ").splitlines()]
    return [found for line in lines for found in re.findall(r"(?:^|[\s/\\])sammix (?!=)(.+?)(?:\s+#|\s*>>|;|$)", line)]


def every_command_line() -> list[tuple[str, str]]:
    return [(name_of(page), line) for page in PAGES for line in command_lines(text_of(page))]


def test_command_lines_are_found():
    assert len(every_command_line()) > 20
    assert command_lines('\n\n    for x in *; do sammix segment "$x" -o y --json >> z; done\n') == [
        'segment "$x" -o y --json'
    ]


@pytest.mark.parametrize(("page", "line"), every_command_line())
def test_command_lines_parse(page, line):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            _parser().parse_args(shlex.split(line))
    except SystemExit as end:
        assert not end.code, f"{page}: sammix {line}: {said.getvalue()}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_in_the_text_exist(page):
    known = dict(commands(_parser()))
    options = {option for parser in known.values() for option in parser._option_string_actions}
    studies = "\n".join(map(text_of, (REPOSITORY / "Testing" / "studies").glob("*.py")))
    options |= {"--check", *re.findall(r'add_argument\("(--[\w-]+)"', studies)}  # of ruff and the studies
    for quoted in re.findall(r"`([^`\n]+)`", prose(text_of(page))):
        words = quoted.split()
        if words[0] == "sammix" and len(words) > 1:
            assert words[1] in known or words[1] == "COMMAND" or words[1] in options, f"{page.name}: {quoted}"
        if words[0] == "sammix" or words[0].startswith("--"):
            wrong = [word for word in words if word.startswith("--") and word not in options]
            assert not wrong, f"{page.name}: {quoted}"


def test_every_command_is_documented():
    page = text_of(REPOSITORY / "docs" / "command-line.md")
    names = {name.split()[0] for name, _ in commands(_parser()) if name}
    assert not [name for name in names if f"`sammix {name}" not in page]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_config_entries_that_pages_name_exist(page):
    config = Config().to_dict()
    for part, entry in re.findall(r"`(model|volume|training)\.(\w+)`", text_of(page)):
        assert entry in config[part], f"{page.name}: {part}.{entry}"


# Rules of the code


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def definitions(kinds: type | tuple[type, ...]) -> Iterator[tuple[str, ast.AST]]:
    """``file:Class.name`` of every function or class, and its node."""

    def within(node: ast.AST, place: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            name = f"{place}{child.name}" if hasattr(child, "name") and isinstance(child, ast.stmt) else None
            if name and isinstance(child, kinds):
                yield name, child
            yield from within(child, f"{name}." if name else place)

    for path in SOURCES:
        yield from within(tree_of(path), f"{name_of(path)}:")


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


def parameters_of(node: ast.FunctionDef) -> int:
    """How many there are, but for self and cls."""
    of = node.args
    names = [arg.arg for arg in (*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg) if arg]
    return len([name for name in names if name not in ("self", "cls")])


def test_few_files_lie_outside_a_room():
    assert len(list(LIBRARY.glob("*.py"))) <= FILES_OUTSIDE_ROOMS


def beyond(kinds: type | tuple[type, ...], measure: Callable[[ast.AST], int], limit: int) -> dict[str, int]:
    return {where: n for where, node in definitions(kinds) if (n := measure(node)) > limit}


@pytest.mark.parametrize(
    ("kinds", "measure", "limit", "reasons"),
    [
        (FUNCTIONS, lines_of, FUNCTION_LINES, LONG_FUNCTIONS),
        (ast.ClassDef, lines_of, CLASS_LINES, LONG_CLASSES),
        (FUNCTIONS, parameters_of, PARAMETERS, MANY_PARAMETERS),
    ],
    ids=["lines of functions", "lines of classes", "parameters"],
)
def test_functions_and_classes_are_small(kinds, measure, limit, reasons):
    found = beyond(kinds, measure, limit)
    assert not {where: n for where, n in found.items() if where not in reasons}
    assert not set(reasons) - set(found), "within the limit by now; take it off the list"


# Equations and names in comments


@pytest.mark.parametrize("number", range(3, 10))
def test_each_equation_is_defined_once(number):
    """The definition is the one function of the method whose docstring begins with "Eq." and names "eq. N" there."""
    pattern = re.compile(rf"\beq\. {number}\b", re.IGNORECASE)
    found = [
        where
        for where, node in definitions(FUNCTIONS)
        if (said := (ast.get_docstring(node) or "").partition("\n")[0]).startswith("Eq. ") and pattern.search(said)
        if where.startswith("SAMMixLib/method/")
    ]
    assert len(found) == 1, found
    file, function = found[0].split(":")
    page = text_of(REPOSITORY / "docs" / "paper-to-code.md")
    row = next(line for line in page.splitlines() if line.startswith("|") and pattern.search(line.split("|")[1]))
    assert f"`{function}` in `{file}`" in row


def comments(path: Path) -> Iterator[str]:
    """Comments and docstrings of a Python file; every comment of another one."""
    if path.suffix != ".py":
        yield from re.findall(r"#(.*)", text_of(path))
        return
    with path.open("rb") as file:
        yield from (token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)):
            yield ast.get_docstring(node) or ""


def commented() -> list[Path]:
    others = ("Makefile", "pyproject.toml", "CMakeLists.txt", ".ci/run", ".pre-commit-config.yaml")
    return [
        *SOURCES,
        *sorted((REPOSITORY / "Testing").rglob("*.py")),
        *sorted((REPOSITORY / "SAMMix" / "Resources").glob("*.txt")),
        *(REPOSITORY / other for other in others),
    ]


@pytest.mark.slow
def test_files_that_comments_name_exist():
    here = {path.name for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
    here |= {path.name for path in REPOSITORY.iterdir()}
    wrong = []
    for path in commented():
        for text in comments(path):
            folders = re.findall(rf"(?<![\w/.])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", text)
            files = re.findall(r"(?<![\w/.*<])([\w/-]+\.(?:py|toml|ui|svg))\b(?!\w)", text)
            wrong += [(name_of(path), name) for name in folders if not (REPOSITORY / name).exists()]
            wrong += [(name_of(path), name) for name in files if Path(name).name not in here]
    assert not wrong
