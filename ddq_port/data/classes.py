"""Names of classes: what an annotation file and a checkpoint say of them, and how two lists of names differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

_MOST_LISTED = 6


class NamesError(Exception):
    """A file that should name classes does not."""


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first ones of a long list."""
    more = len(names) - _MOST_LISTED
    shown = ", ".join(names[:_MOST_LISTED] if more > 1 else names)
    return f"{shown} and {more} more" if more > 1 else shown


def difference(first: Sequence[str], second: Sequence[str]) -> str | None:
    """Say how the second of two lists of names differs from the first; None if it does not.

    The words `first` and `second` in it mean the lists, so a message must name them in that order.
    """
    one, two = list(first), list(second)
    if one == two:
        return None
    at = next((at for at, pair in enumerate(zip(one, two)) if pair[0] != pair[1]), min(len(one), len(two)))
    if sorted(one) == sorted(two):
        return f"the same names in another order, class {at} is `{one[at]}` in the first and `{two[at]}` in the second"
    if len(one) == len(two) and [_plain(name) for name in one] == [_plain(name) for name in two]:
        return f"`{one[at]}` and `{two[at]}` differ only in {_spelling(one[at], two[at])}"
    for lacking, have, which in ((one, two, "first"), (two, one, "second")):
        absent = [name for name in have if name not in lacking]
        if absent and len(have) > len(lacking):
            return f"the {which} lacks {listed([f'`{name}`' for name in absent])}"
    return f"class {at} is `{one[at]}` in the first and `{two[at]}` in the second"


def repeated(names: Sequence[str]) -> str | None:
    """Return the first name that stands in a list a second time; None if there is none."""
    return next((name for at, name in enumerate(names) if name in names[:at]), None)


def resembling(name: str, names: Sequence[str]) -> str | None:
    """Say which of some names is the same but for case, white space or punctuation, and how it differs; else None."""
    other = next((other for other in names if other != name and _plain(other) == _plain(name)), None)
    return other if other is None else f"`{other}`, which differs only in {_spelling(name, other)}"


def of_file(ann_file: Path) -> tuple[str, ...]:
    """Return the names of an annotation file's categories in the order of the file, which is that of mmdet's labels.

    Args:
        ann_file: in COCO format. Read once as long as it does not change: those of large sets take seconds.

    Raises:
        NamesError: saying why there are none.
    """
    try:
        state = ann_file.stat()
        return _of_file(ann_file, state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        raise NamesError("there is no such file") from None
    except RecursionError:
        raise NamesError("RecursionError: lists in lists without end") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise NamesError(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=16)
def _of_file(ann_file: Path, _mtime: int, _size: int) -> tuple[str, ...]:
    names = tuple(category["name"] for category in json.loads(ann_file.read_bytes())["categories"])
    if not names:
        raise NamesError("its list of categories is empty")
    wrong = next((name for name in names if not isinstance(name, str)), "")
    if wrong != "":
        raise NamesError(f"the name {wrong!r} of a category is not text")
    return names


def of_meta(meta: Any) -> tuple[str, ...] | None:
    """Return the names that a checkpoint's `meta` of MMDetection 3.x or 2.x gives its classes, if it does."""
    if not isinstance(meta, Mapping):
        return None
    of_data = meta.get("dataset_meta")
    for place in (of_data, meta):
        for key in ("classes", "CLASSES"):
            names = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _spelling(one: str, two: str) -> str:
    if one.casefold() == two.casefold():
        return "upper and lower case"
    if "".join(one.split()) == "".join(two.split()):
        return "white space"
    return "case, white space or punctuation"
