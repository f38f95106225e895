"""Rules in a file: JSON, or Python that holds `RULES = (...)`; and the writer of the JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

from converters.errors import RuleFileError, listed, one_line
from converters.rules.kinds import Rule, fault_of

#: What a rule is called in JSON, and its kind.
KINDS: Mapping[str, type[Rule]] = {kind.action: kind for kind in get_args(Rule)}
_NAME, _VARIABLE, _COMMENT = "rule", "RULES", "comment"
#: Fields that are no text, and what their values are in JSON.
_LISTS = {
    "targets": (str, "a list of patterns"),
    "sources": (str, "a list of patterns"),
    "sizes": (int, "a list of whole numbers"),
    "axes": (int, "a list of whole numbers"),
    "index": (int, "a list of whole numbers"),
    "shape": (int, "a list of whole numbers"),
    "source_shape": (int, "a list of whole numbers"),
}
_NUMBERS = ("axis", "start", "stop", "length")
_REST = "rest"


def load(path: str | Path) -> tuple[Rule, ...]:
    """Read the rules in a file.

    A file whose name ends in `.py` is executed and holds its rules, objects of this package's kinds, as `RULES`. Any
    other holds JSON: a list of objects, each with the name of a kind as `rule` and the fields of the kind. `comment`
    says nothing to a machine; it may stand beside them or alone.

    Raises:
        RuleFileError: In one line with the file and the number of the rule, counted from 0, if something is no rule, or
            one that contradicts itself. Whether rules contradict each other, the mapping says that they are put into.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RuleFileError(f"Cannot take rules from `{path}`: it is no text ({one_line(error)}).") from error
    rules = _of_python(path, text) if path.suffix == ".py" else _of_json(path, text)
    if not rules:
        raise RuleFileError(f"Cannot take rules from `{path}`: it holds none, expected one or more.")
    for number, rule in enumerate(rules):
        fault = fault_of(rule, number)
        if fault is None and not rule.is_computable:
            fault = "its target is not known whole, for `rest` is missing"
        if fault is not None:
            raise RuleFileError(f"Cannot take rule {number} of `{path}`: {fault.removesuffix('.')}.")
    return rules


def dump(rules: Iterable[Rule], comments: Iterable[str] = (), last: Iterable[str] = ()) -> str:
    """Write rules as JSON, one on a line, that `load` reads; fields with their default are left out.

    Args:
        rules: What to write.
        comments: Of each rule.
        last: Comments that stand alone, behind the rules.
    """
    said = [{_NAME: rule.action, **_said(rule)} for rule in rules]
    noted = ({_COMMENT: text} for text in comments)
    said = [{**entry, **comment} for entry, comment in zip_longest(said, noted, fillvalue={})]
    lines = [json.dumps(entry) for entry in (*said, *({_COMMENT: text} for text in last))]
    return "[\n" + ",\n".join(f"  {line}" for line in lines) + "\n]\n"


def dump_python(rules: Iterable[Rule], comments: Iterable[str] = (), last: Iterable[str] = ()) -> str:
    """Write rules as Python that `load` reads, each below its comment.

    Args:
        rules, comments, last: As of `dump`.
    """
    rules = list(rules)
    kinds = ", ".join(sorted({type(rule).__name__ for rule in rules}))
    lines = [f"from converters.rules.mapping import {kinds}", "", "RULES = ("]
    for rule, comment in zip_longest(rules, comments):
        lines += _commented(comment, "    ") + [f"    {_called(rule)},"]
    return "\n".join([*lines, ")", *(line for text in last for line in _commented(text, ""))]) + "\n"


def _commented(text: str | None, indent: str) -> list[str]:
    return textwrap.wrap(
        text or "", 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _called(rule: Rule) -> str:
    """Write the call that makes a rule: what it needs by place, the rest by name."""
    held = {field.name: getattr(rule, field.name) for field in fields(rule)}
    needed = [field.name for field in fields(rule) if field.default is MISSING]
    given = [_literal(held[name]) for name in needed]
    given += [
        f"{field.name}={_literal(held[field.name])}"
        for field in fields(rule)
        if field.name not in needed and held[field.name] != field.default
    ]
    return f"{type(rule).__name__}({', '.join(given)})"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _said(rule: Rule) -> dict[str, Any]:
    values = {field.name: getattr(rule, field.name) for field in fields(rule)}
    defaults = {field.name: field.default for field in fields(rule)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if defaults[name] is MISSING or value != defaults[name] or name == "axis"
        if value is not None
    }


def _of_json(path: Path, text: str) -> tuple[Rule, ...]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuleFileError(f"Cannot take rules from `{path}`: it is no JSON ({one_line(error)}).") from error
    if not isinstance(entries, list):
        raise RuleFileError(f"Cannot take rules from `{path}`: it is {_named(entries)}, expected a list of rules.")
    entries = [_uncommented(entry) for entry in entries]
    return tuple(
        _rule(f"Cannot take rule {number} of `{path}`", entry)
        for number, entry in enumerate(entry for entry in entries if entry is not None)
    )


def _uncommented(entry: Any) -> Any:
    """Return an entry without its comment; None where it is no more than that."""
    if not isinstance(entry, dict) or not isinstance(entry.get(_COMMENT), str):
        return entry
    return {key: value for key, value in entry.items() if key != _COMMENT} or None


def _rule(place: str, entry: Any) -> Rule:
    """Make a rule of an object of JSON."""
    if not isinstance(entry, dict):
        raise RuleFileError(f"{place}: it is {_named(entry)}, expected an object such as {_EXAMPLE}.")
    name = entry.get(_NAME)
    if not isinstance(name, str) or name not in KINDS:
        what = "has no `rule`" if name is None else f"has `rule` {json.dumps(name)}"
        raise RuleFileError(f"{place}: it {what}, expected one of {', '.join(KINDS)}.")
    kind = KINDS[name]
    known = {field.name: field for field in fields(kind)}
    strange = [key for key in entry if key != _NAME and key not in known]
    if strange:
        raise RuleFileError(f"{place}: `{name}` has no {listed(strange)}, expected {listed(known, len(known))}.")
    missing = [key for key, field in known.items() if field.default is MISSING and key not in entry]
    if missing:
        raise RuleFileError(f"{place}: `{name}` lacks {listed(missing)}.")
    return kind(**{key: _value(f"{place}: `{key}`", known[key], entry[key]) for key in entry if key != _NAME})


def _value(place: str, field: Field[Any], value: Any) -> Any:
    """Check the value of a field and return it as rules have it."""
    if value is None and field.default is None:
        return None
    if field.name in _LISTS:
        kind, expected = _LISTS[field.name]
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise RuleFileError(f"{place} is {_short(value)}, expected {expected}.")
        return tuple(value)
    if field.name in _NUMBERS and type(value) is not int:
        raise RuleFileError(f"{place} is {_short(value)}, expected a whole number.")
    if field.name == _REST and type(value) not in (int, float):
        raise RuleFileError(f"{place} is {_short(value)}, expected a number.")
    if field.name not in (*_NUMBERS, _REST) and not isinstance(value, str):
        raise RuleFileError(f"{place} is {_short(value)}, expected a text.")
    return value


def _of_python(path: Path, text: str) -> tuple[Rule, ...]:
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(text, str(path), "exec"), names)
    except Exception as error:  # whatever the file's code does wrong
        raise RuleFileError(
            f"Cannot take rules from `{path}`: its code fails with {type(error).__name__}: {one_line(error)}."
        ) from error
    if _VARIABLE not in names:
        raise RuleFileError(f"Cannot take rules from `{path}`: it has no `{_VARIABLE} = (...)`.")
    rules = names[_VARIABLE]
    if not isinstance(rules, (tuple, list)):
        raise RuleFileError(
            f"Cannot take rules from `{path}`: `{_VARIABLE}` is of type {type(rules).__name__}, expected a tuple."
        )
    for number, rule in enumerate(rules):
        if not isinstance(rule, tuple(KINDS.values())):
            raise RuleFileError(
                f"Cannot take rule {number} of `{path}`: it is of type {type(rule).__name__}, expected "
                f"{', '.join(kind.__name__ for kind in KINDS.values())}."
            )
    return tuple(rules)


def _named(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


_EXAMPLE = '{"rule": "rename", "source": "old.*", "target": "new.*"}'
