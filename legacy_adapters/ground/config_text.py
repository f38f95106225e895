"""The text of a config in a checkpoint, read without executing it. Imports the standard library only."""

from __future__ import annotations

import ast
from typing import Any, Dict


def parse(text: str) -> Dict[str, Any]:
    """Read what ``Config.pretty_text`` of mmcv or mmengine wrote: assignments of literals and ``dict(...)``.

    Tuples become lists. What is neither is kept as its source text. Nothing is executed: the text comes from a file.

    Raises:
        SyntaxError: if the text is no Python.
    """
    return {
        statement.targets[0].id: _value(statement.value, text)
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        parts = [_value(argument, text) for argument in node.args] + [
            {keyword.arg: _value(keyword.value, text)} if keyword.arg else _value(keyword.value, text) for keyword in node.keywords
        ]
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    if isinstance(node, ast.Dict):
        return {_value(key, text): _value(value, text) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_value(item, text) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.get_source_segment(text, node)
