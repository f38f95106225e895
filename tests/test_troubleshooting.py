"""`docs/troubleshooting.md` quotes messages that the commands really print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ddq_port", "converters", "parity", "legacy_adapters")
_ROW = re.compile(r"^\| `(?P<message>[^|]+?)` \|", re.MULTILINE)


def messages() -> list[str]:
    return [found["message"] for found in _ROW.finditer((ROOT / "docs" / "troubleshooting.md").read_text())]


def texts() -> Iterator[str]:
    """Yield every text in the code, those of f-strings with `...` in place of what is filled in."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                    yield "".join(map(str, parts))


@pytest.fixture(scope="module")
def code() -> str:
    return "\n".join(" ".join(text.split()) for text in texts()).replace("`", "")


@pytest.mark.parametrize("message", messages())
def test_every_quoted_message_is_in_the_code(message: str, code: str) -> None:
    pieces = [piece.strip(" .,:;()") for piece in message.split("...")]
    missing = [piece for piece in pieces if len(piece) > 3 and piece not in code]
    assert not missing, f"no code prints {missing}"
