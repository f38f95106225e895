"""A config as a Python file that a person can read: plain dicts, one setting per line where they are many."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _INDENT = 100, "    "


def source(title: str, config: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """Write a config.

    Args:
        title: becomes its docstring.
        config: plain data: dicts, lists, tuples, numbers, text, None.
        variables: name -> value of what stands in the config more than once; it is written first, and named elsewhere.
    """
    sections = [f'"""{title}"""']
    known: dict[str, Any] = {}
    for name, value in (*variables.items(), *config.items()):
        same = next((other for other, held in known.items() if _worth_a_name(value) and held == value), None)
        sections.append(f"{name} = {same or _text(value, '', len(name) + 3, known)}")
        known[name] = value
    return "\n\n".join(sections) + "\n"


def _worth_a_name(value: Any) -> bool:
    return isinstance(value, (Mapping, list)) and len(value) > 1


def _text(value: Any, indent: str, used: int, names: Mapping[str, Any]) -> str:
    """Return a value on one line if it fits behind ``used`` characters, or else on several."""
    name = next(
        (name for name, held in names.items() if _worth_a_name(value) and isinstance(value, list) and held == value),
        None,
    )
    if name is not None:
        return name
    line = _inline(value, names)
    if len(line) + used + len(indent) <= _WIDTH or not isinstance(value, (Mapping, list, tuple)) or not value:
        return line
    deeper = indent + _INDENT
    if isinstance(value, Mapping):
        opening, closing, separator = ("dict(", ")", "=") if _is_call(value) else ("{", "}", ": ")
        heads = [(key if separator == "=" else repr(key)) + separator for key in value]
        items = [head + _text(item, deeper, len(head) + 1, names) for head, item in zip(heads, value.values())]
    else:
        opening, closing = "[]" if isinstance(value, list) else "()"
        items = [_text(item, deeper, 1, names) for item in value]
    return "\n".join([opening, *(f"{deeper}{item}," for item in items), indent + closing])


def _inline(value: Any, names: Mapping[str, Any]) -> str:
    if isinstance(value, Mapping):
        texts = [_inline(item, names) for item in value.values()]
        if _is_call(value):
            return f"dict({', '.join(f'{key}={text}' for key, text in zip(value, texts))})"
        return f"{{{', '.join(f'{key!r}: {text}' for key, text in zip(value, texts))}}}"
    if isinstance(value, (list, tuple)):
        name = next(
            (
                name
                for name, held in names.items()
                if _worth_a_name(value) and isinstance(value, list) and held == value
            ),
            None,
        )
        return name or _sequence(value, names)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f"float('{value}')"
    return repr(value)


def _sequence(value: Sequence[Any], names: Mapping[str, Any]) -> str:
    items = ", ".join(_inline(item, names) for item in value)
    if isinstance(value, list):
        return f"[{items}]"
    return f"({items},)" if len(value) == 1 else f"({items})"


def _is_call(value: Mapping[str, Any]) -> bool:
    """Tell whether a dict can be written as ``dict(key=...)``."""
    return all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
