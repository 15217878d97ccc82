"""No command writes onto what it reads: refused before any work, by whatever name, and the input stays as it is."""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from SAMMixLib import cli
from SAMMixLib.models.card import CARD

PATHS = {"PATH", "FILE", "FOLDER", "DIR", "RUN", "SET", "CT", "OUT", "SCAN", "INPUT", "CSV", "FILE.zip"}
"""What an option that takes a path is shown with, where it is not a :class:`Path` by its type."""


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Each command and action: its words and its parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield words, parser
    for action in below:
        for word, own in action.choices.items():
            yield from commands(own, (*words, word))


def alternatives(parser: argparse.ArgumentParser) -> list[set[str]]:
    """Options of which a command takes one, and must be given one."""
    groups = [group for group in parser._mutually_exclusive_groups if group.required]
    return [{action.dest for action in group._group_actions} for group in groups]


EVERY = dict(commands(cli._parser()))
PAIRS = [
    (words, output, read)
    for words, parser in EVERY.items()
    for output in parser.get_default("writes")
    for read in parser.get_default("reads")
    if not any({output, read} <= group for group in alternatives(parser))
]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_option_with_a_path_is_said_to_be_read_or_written(words):
    parser = EVERY[words]
    reads, writes = set(parser.get_default("reads")), set(parser.get_default("writes"))
    options = {action.dest for action in parser._actions}
    paths = {action.dest for action in parser._actions if action.type is Path or action.metavar in PATHS}
    assert paths <= reads | writes <= options and not reads & writes


def command_line(words: tuple[str, ...], given: dict[str, Path]) -> list[str]:
    """A command with these options, and with what else it cannot do without."""
    parser = EVERY[words]
    needed = {min(group) for group in alternatives(parser) if not given.keys() & group}
    line = list(words)
    for action in parser._actions:
        if action.dest in given or action.required or action.dest in needed:
            option = action.option_strings[-1:]
            line += [*option, str(given.get(action.dest, "starter"))]
    return line


def other_names(folder: Path, source: Path) -> Iterator[Path]:
    """By what other names a file or a folder, or a file in a folder, can be meant as an output."""
    yield source
    link = folder / "link"
    link.symlink_to(source)
    yield link
    yield folder / "nowhere" / ".." / source.name if sys.platform == "win32" else source.parent / "." / source.name
    if source.is_dir():
        yield source / CARD
        yield link / CARD
    else:
        os.link(source, folder / "hard-link")
        yield folder / "hard-link"


def sums(folder: Path) -> dict[str, tuple[str, int]]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in files}


@pytest.mark.parametrize(("words", "output", "read"), PAIRS, ids=lambda value: "".join(value))
@pytest.mark.parametrize("kind", ["file", "write-protected", "folder"])
def test_an_input_is_no_output(tmp_path, monkeypatch, capsys, words, output, read, kind):
    source = tmp_path / "in" / "source.nii.gz"
    source.parent.mkdir()
    if kind == "folder" or read == "model":  # a model is a folder
        source.mkdir()
        (source / CARD).write_text("a model's card, or a file of a series")
    else:
        source.write_bytes(b"a scan")
        source.chmod(0o444 if kind == "write-protected" else 0o644)
    names = list(other_names(tmp_path, source))
    before = sums(tmp_path)
    for name in names:
        assert refused(monkeypatch, command_line(words, {output: name, read: source})) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "input" in error and str(name) in error
    assert sums(tmp_path) == before
    assert stat.S_IMODE(source.stat().st_mode) & 0o222 or kind == "write-protected"


@pytest.mark.parametrize(("words", "output", "read"), [pair for pair in PAIRS if pair[2] != "model"],
                         ids=lambda value: "".join(value))  # fmt: skip
def test_another_case_on_a_disk_that_is_blind_to_it(tmp_path, monkeypatch, capsys, words, output, read):
    source, name = tmp_path / "scan.nii.gz", tmp_path / "SCAN.nii.gz"
    source.write_bytes(b"a scan")
    lower = lambda path: str(path).lower()  # noqa: E731
    monkeypatch.setattr(os.path, "exists", lambda path, real=os.path.exists: real(lower(path)))
    monkeypatch.setattr(os.path, "samefile", lambda one, other: lower(one) == lower(other))
    assert refused(monkeypatch, command_line(words, {output: name, read: source})) == 2
    assert "is the input itself" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name")
@pytest.mark.parametrize(("words", "output", "read"), [pair for pair in PAIRS if pair[2] != "model"],
                         ids=lambda value: "".join(value))  # fmt: skip
def test_a_pipe_that_is_input_and_output(tmp_path, monkeypatch, capsys, words, output, read):
    os.mkfifo(tmp_path / "pipe")
    line = command_line(words, {output: tmp_path / "pipe", read: tmp_path / "pipe"})
    assert refused(monkeypatch, line) == 2
    assert "is the input itself" in capsys.readouterr().err


def refused(monkeypatch, line: list[str]) -> int:
    """The exit status of a command that must not begin its work."""
    options = cli._parser().parse_args(line)
    options.run = lambda options: pytest.fail("it began its work")
    with monkeypatch.context() as patch:
        patch.setattr(cli, "_parser", lambda: SimpleNamespace(parse_args=lambda arguments: options))
        return cli.main(line)
