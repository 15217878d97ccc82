"""A reader of the paper finds each equation by one search."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted((REPOSITORY / "SAMMixLib").rglob("*.py"))


def docstrings(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


@pytest.mark.parametrize(
    ("equation", "function"),
    [
        (3, "classification_loss"),
        (4, "class_activation_map"),
        (5, "binary_mask"),
        (6, "binary_mask"),
        (7, "bounding_boxes"),
        (8, "bounding_boxes"),
        (9, "segmentation_loss"),
    ],
)
def test_an_equation_is_found_by_one_search(equation, function):
    lines = [line for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(bool(re.search(rf"eq\. {equation}\b", line, re.IGNORECASE)) for line in lines) == 1
    found = [name for path in SOURCES for name, text in docstrings(path) if re.search(rf"(?i)eq\. {equation}\b", text)]
    assert found == [function]
