"""Check the types of what a recording says about itself, before anything relies on them."""

from __future__ import annotations

from typing import Any

from .kinds import Kind

#: Field -> type; numbers are from 0 on. A trailing ``?`` marks what may be missing.
_RECORD = {
    "phase": str, "kind": str, "name": str, "call": int, "slot": str, "dtype": str, "shape": list, "digest": str,
    "scope?": str,
}  # fmt: skip
_COVERAGE = {
    "leaf_calls": list, "never_executed": list, "without_gradient": list, "frozen?": list, "cut_off?": list,
    "not_finite?": list, "classes": dict, "inner_calls?": list, "records?": list, "init?": dict,
    "changed_inputs?": list, "permuted?": list, "selected?": list,
}  # fmt: skip
_PROVENANCE = {"family?": str, "variant?": str, "checks?": list, "steps?": int, "modules?": dict}
_COUNT = {"phase": str, "kind": str, "count": int}
_LEAF_CALL = {"phase": str, "name": str, "count": int}
#: List of the coverage -> types of the parts of an entry, and what they are.
_ENTRIES = {
    "cut_off": ((str, str, str, int, str), "phase, kind, name, call and slot"),
    "not_finite": ((str, str, str, int, str), "phase, module, name, call and a word"),
    "changed_inputs": ((str, str), "phase and name"),
    "permuted": ((str, str, str, int, str, str), "phase, kind, name, call, slot and a text"),
    "selected": ((str, str, str, int, str, str), "phase, kind, name, call, slot and a text"),
}
_NAMED = {str: "a string", int: "a number from 0 on", list: "a list", dict: "an object"}
_NAMES = ("never_executed", "without_gradient", "frozen")


class FieldError(TypeError):
    """A field of a recording has another type than it must have; the message is one clause."""


def check_fields(provenance: Any, coverage: Any, records: Any) -> None:
    """Refuse provenance, coverage or records, as read from JSON, whose fields are not of the types they must have.

    Raises:
        FieldError: naming the first field, what it is and what it must be.
    """
    _each("provenance", [provenance], dict)
    said = {name: value for name, value in provenance.items() if value is not None or name == "modules"}
    _fields("provenance", [said], _PROVENANCE)
    _each("provenance.checks", said.get("checks", []), str)
    _each("provenance.modules", provenance.get("modules", {}), dict)
    _fields("provenance.modules", [*provenance.get("modules", {}).values()], {"version": str})
    _fields("coverage", [coverage], _COVERAGE)
    _each("coverage.classes", coverage["classes"], str)
    for name in _NAMES:
        _each(f"coverage.{name}", coverage.get(name, []), str)
    for name in ("leaf_calls", "inner_calls"):
        _fields(f"coverage.{name}", coverage.get(name, []), _LEAF_CALL)
    for name, (types, parts) in _ENTRIES.items():
        for place, entry in enumerate(coverage.get(name, [])):
            if type(entry) is not list or tuple(map(type, entry)) != types:
                raise FieldError(f"coverage.{name}[{place}] is {entry!r:.60}, expected {parts}")
    _fields("coverage.records", coverage.get("records", []), _COUNT)
    if type(records) is not list:
        raise FieldError(f"records is {records!r:.60}, expected a list")
    _fields("records", records, _RECORD)
    kinds = [record["kind"] for record in records]
    if not set(kinds) <= set(Kind):
        place, kind = next((place, kind) for place, kind in enumerate(kinds) if kind not in set(Kind))
        raise FieldError(f"records[{place}].kind is {kind!r:.60}, expected one of {', '.join(Kind)}")
    lengths = [length for record in records for length in record["shape"]]
    if not set(map(type, lengths)) <= {int} or min(lengths, default=0) < 0:
        raise FieldError("the shape of a record is not made of numbers from 0 on")


def _fields(where: str, rows: list[Any], table: dict[str, type]) -> None:
    _each(where, rows, dict)
    for field, kind in table.items():
        name, optional = field.rstrip("?"), field.endswith("?")
        values = [row.get(name, kind() if optional else None) for row in rows]
        if not set(map(type, values)) <= {kind} or (kind is int and min(values, default=0) < 0):
            place = next(i for i, value in enumerate(values) if type(value) is not kind or kind is int and value < 0)
            at = f"{where}[{place}]" if len(rows) > 1 else where
            actual = f"{values[place]!r:.60}" if name in rows[place] else "missing"
            raise FieldError(f"{at}.{name} is {actual}, expected {_NAMED[kind]}")


def _each(where: str, values: list[Any] | dict[str, Any], kind: type) -> None:
    items = values.items() if type(values) is dict else enumerate(values)
    for place, value in items:
        if type(value) is not kind:
            raise FieldError(f"{where}[{place}] is {value!r:.60}, expected {_NAMED[kind]}")
