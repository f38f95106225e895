"""Two structures compared setting by setting, with the defaults of the classes that they are for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from converters.configs.kinds import ABSENT, Context, Setting


@dataclass(frozen=True)
class Gap:
    """A place where two structures are not the same."""

    path: str
    old: Setting
    new: Setting


def gaps(old: Any, new: Any, context: Context, path: str = "") -> Iterator[Gap]:
    """Yield what differs, in the order of the keys.

    A setting that one side leaves out has the default of its class; where none is known, None is the same as nothing.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _of_dicts(old, new, context, path)
    elif _are_parts(old) and _are_parts(new):
        yield from _of_lists(old, new, context, path)
    elif not _same(old, new):
        yield Gap(path, Setting(old), Setting(new))


def count(value: Any) -> int:
    """Return how many settings a structure has."""
    if isinstance(value, Mapping):
        return sum(map(count, value.values()))
    return sum(map(count, value)) if _are_parts(value) else 1


def _of_dicts(old: Mapping[str, Any], new: Mapping[str, Any], context: Context, path: str) -> Iterator[Gap]:
    if old.get("type") != new.get("type") and "type" in old and "type" in new:
        yield Gap(_joined(path, "type"), Setting(dict(old)), Setting(dict(new)))
        return
    kind = old.get("type", new.get("type"))
    defaults = {**context.implied(path), **(context.defaults(path, kind) if kind is not None else {})}
    for key in dict.fromkeys((*old, *new)):
        mine, theirs = (_setting(side, key, defaults) for side in (old, new))
        if ABSENT in (mine.value, theirs.value):
            present = theirs.value if mine.value is ABSENT else mine.value
            if present is not None:
                yield Gap(_joined(path, key), mine, theirs)
        elif mine.is_default or theirs.is_default:
            below = list(gaps(mine.value, theirs.value, context, _joined(path, key)))
            for gap in below:
                yield Gap(
                    gap.path,
                    Setting(gap.old.value, gap.old.is_default or mine.is_default),
                    Setting(gap.new.value, gap.new.is_default or theirs.is_default),
                )
        else:
            yield from gaps(mine.value, theirs.value, context, _joined(path, key))


def _setting(side: Mapping[str, Any], key: str, defaults: Mapping[str, Any]) -> Setting:
    return Setting(side[key]) if key in side else Setting(defaults.get(key, ABSENT), True)


def _of_lists(old: list[Any], new: list[Any], context: Context, path: str) -> Iterator[Gap]:
    """Compare lists of parts: those of one type with each other, in their order.

    Where both sides have the same types in another order, the order is one gap, and parts are compared all the same.
    """
    kinds = [[str(item.get("type")) if isinstance(item, Mapping) else "" for item in side] for side in (old, new)]
    if kinds[0] != kinds[1] and sorted(kinds[0]) == sorted(kinds[1]):
        yield Gap(path, *map(Setting, kinds))
        places = [sorted(range(len(side)), key=side.__getitem__) for side in kinds]
        for i, j in zip(*places):
            yield from gaps(old[i], new[j], context, _joined(path, str(j)))
        return
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, *kinds, autojunk=False).get_opcodes():
        if tag == "equal" or (tag == "replace" and i2 - i1 == j2 - j1):
            for i, j in zip(range(i1, i2), range(j1, j2)):
                yield from gaps(old[i], new[j], context, _joined(path, str(j)))
            continue
        for i in range(i1, i2):
            yield Gap(_joined(path, str(i)), Setting(old[i]), Setting(ABSENT))
        for j in range(j1, j2):
            yield Gap(_joined(path, str(j)), Setting(ABSENT), Setting(new[j]))


def _are_parts(value: Any) -> bool:
    """Tell whether a list is one of parts that are compared one by one, not a value."""
    return (
        isinstance(value, list)
        and all(isinstance(item, (Mapping, list)) for item in value)
        and any(isinstance(item, Mapping) or _are_parts(item) for item in value)
        or value == []
    )


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, bool) is not isinstance(new, bool) and {type(old), type(new)} <= {bool, int, float}:
        return False
    return bool(old == new)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)
