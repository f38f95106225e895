"""The text of a config in a checkpoint, read without executing it. Imports the standard library only."""

from __future__ import annotations

import ast
from typing import Any, Dict


def parse(text: str) -> Dict[str, Any]:
    """Read what ``Config.pretty_text`` of mmcv or mmengine wrote: assignments of literals, ``dict(...)`` and names above.

    Tuples become lists. What is nothing of that is kept as its source text. Nothing is executed: the text comes from a file.

    Raises:
        SyntaxError: if the text is no Python.
    """
    found: Dict[str, Any] = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found[statement.targets[0].id] = _value(statement.value, text, found)
    return found


def _value(node: ast.expr, text: str, names: Dict[str, Any]) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        parts = [_value(argument, text, names) for argument in node.args]
        for keyword in node.keywords:
            value = _value(keyword.value, text, names)
            parts.append({keyword.arg: value} if keyword.arg else value)
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    if isinstance(node, ast.Dict):
        pairs = [(key, value) for key, value in zip(node.keys, node.values) if key is not None]
        return {_value(key, text, names): _value(value, text, names) for key, value in pairs}
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_value(item, text, names) for item in node.elts]
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.get_source_segment(text, node)
