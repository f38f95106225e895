"""The text of a config in a checkpoint, read without executing it, and what differs from another config."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any


def parse(text: str) -> dict[str, Any]:
    """Read what mmengine's ``Config.pretty_text`` wrote: assignments of literals and ``dict(...)``.

    What is neither is kept as its source text. Nothing is executed: the text comes from a file.

    Raises:
        SyntaxError: if the text is no Python.
    """
    return {
        statement.targets[0].id: _value(statement.value)
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        parts = [_value(argument) for argument in node.args] + [
            {keyword.arg: _value(keyword.value)} if keyword.arg else _value(keyword.value) for keyword in node.keywords
        ]
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def flat(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by their dotted keys; lists of plain values are one setting."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list | tuple) and any(isinstance(item, Mapping) for item in config):
        for number, item in enumerate(config):
            yield from flat(item, f"{key}.{number}")
    else:
        yield key, list(config) if isinstance(config, list | tuple) else config
