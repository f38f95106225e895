"""Where the models give a tensor another shape, a comment says which."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for name in ("models", "ops") for path in (ROOT / "ddq_port" / name).rglob("*.py"))
CALLS = {"cat", "expand", "flatten", "gather", "permute", "reshape", "stack", "transpose", "unflatten", "view"}
_SHAPE = re.compile(r"#.*\[.*\]")


def uncommented(source: str) -> Iterator[int]:
    """Yield the lines of statements that change a shape, with no shape in a comment on or right before them."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt) or hasattr(node, "body"):
            continue
        names = {getattr(call.func, "attr", None) for call in ast.walk(node) if isinstance(call, ast.Call)}
        if names & CALLS and not _SHAPE.search("\n".join(lines[max(node.lineno - 2, 0) : node.end_lineno])):
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_change_of_shape_has_a_comment(path: Path) -> None:
    assert list(uncommented(path.read_text())) == []


def test_a_missing_comment_is_seen() -> None:
    assert list(uncommented("x = y.view(2, 3)\nz = x.flatten()  # [6]\n# [3, 2]\nw = x.permute(1, 0)\n")) == [1]
