"""Words of detectors that the engine must not know, and where it is looked for them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

#: Globs of words; a word may be a part of an identifier (``_old_decoder``), but not of another word (``decoders``).
WORDS = (
    # parts of a model and attributes of it
    "backbone", "neck", "encoder", "decoder", "bbox_head", "cls_branches", "reg_branches", "query_map",
    "dn_query_generator", "num_queries", "dense_match",
    # families, variants and what they are called
    "ddq_detr", "mmdet_ddq", "ddq-detr", "detr", "dino", "ddq", "tiny*", "r50*", "swinl*",
)  # fmt: skip
#: Words that stand for parts of a detector by themselves, and are common in longer names (``to_dense``).
ALONE = ("distinct", "dense")
#: Packages of the engine, and what of them belongs to families and their bases.
PACKAGES = ("parity", "converters", "legacy_adapters")
APART = (
    "parity/adapters/", "legacy_adapters/families/", "legacy_adapters/targets/", "legacy_adapters/bases/",
    "legacy_adapters/template/", "legacy_adapters/standin/", "legacy_adapters/mmdet2.py", "legacy_adapters/mmdet3.py",
)  # fmt: skip
#: What the toolkit itself is called: its commands, its package, its environment variables, its manifest.
OWN = r"ddq[-_](?:convert|parity|train|eval|port|manifest)\w*"

_WORD = re.compile(
    rf"{OWN}|(?<![^\W_])(?P<word>{'|'.join(word.replace('*', '[a-z0-9]*') for word in WORDS)})(?![^\W_])"
    rf"|\b(?P<alone>{'|'.join(ALONE)})\b",
    re.IGNORECASE,
)


def engine_files(root: Path) -> list[Path]:
    """Return the Python files of the engine beneath the folder that holds its packages."""
    files = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return [path for path in files if not path.relative_to(root).as_posix().startswith(APART)]


def words_in(source: str) -> Iterator[str]:
    """Yield the words that identifiers and strings of a Python file have, docstrings included: ``line: word``."""
    for node in ast.walk(ast.parse(source)):
        texts = [getattr(node, name, None) for name in ("id", "attr", "arg", "name", "asname", "module", "value")]
        texts += getattr(node, "names", ()) if isinstance(node, ast.Global | ast.Nonlocal) else ()
        for text in texts:
            for match in _WORD.finditer(text) if isinstance(text, str) else ():
                if match["word"] or match["alone"]:
                    yield f"{getattr(node, 'lineno', 1)}: {match[0]}"
