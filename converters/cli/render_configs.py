"""Turn what carrying and comparing configs gives into lines of text, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from converters.configs.differing import count
from converters.configs.kinds import ABSENT, Comparison, Difference, Remark, Setting, Translation
from legacy_adapters.ground.words import counted, one_line, sentence

_WIDTH = 79
_LONGEST = 300  # characters of a value
#: Parts that stand in a config more than once, and the names that they get -> where the first stands.
_VARIABLES = {
    "train_pipeline": ("train_dataloader", "dataset", "pipeline"),
    "test_pipeline": ("test_dataloader", "dataset", "pipeline"),
}


def variables(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is written once, under a name."""
    found = {}
    for name, path in _VARIABLES.items():
        value: Any = config
        for word in path:
            value = value.get(word) if isinstance(value, Mapping) else None
        if value:
            found[name] = value
    return found


def comparison_lines(found: Comparison) -> list[str]:
    """Return everything that differs, what was not compared, and the verdict."""
    lines: list[str] = []
    group = ""
    for difference in found.differences:
        if difference.group != group:
            group = difference.group
            lines += ["", group.capitalize()] if lines else [group.capitalize()]
        lines += _difference_lines(difference)
    if found.remarks:
        lines += ["", "Not translated or not compared"] if lines else ["Not translated or not compared"]
        lines += [line for remark in found.remarks for line in _remark(remark, "  ")]
    return [*lines, "", verdict(found)] if lines else [verdict(found)]


def verdict(found: Comparison) -> str:
    """Return the closing line; it starts with SAME or DIFFERENT."""
    if not found.differences:
        return f"SAME: {counted(found.compared, 'setting')} compared, none differs in meaning"
    groups = Counter(difference.group for difference in found.differences)
    kinds = ", ".join(
        f"{number} of {name}" if name != "the rest" else f"{number} else" for name, number in groups.items()
    )
    verb = "differs" if len(found.differences) == 1 else "differ"
    number = counted(len(found.differences), "setting")
    return f"DIFFERENT: {number} {verb} in meaning ({kinds}); {found.compared} compared"


def remark_lines(remarks: Iterable[Remark]) -> list[str]:
    """Return what was not carried over, a line each."""
    return [f"note: {one_line(' '.join(_remark_text(remark)))}" for remark in remarks]


def written(family: str, old: str, new: str, made: Translation, wrong: tuple[str, ...], no_build: bool) -> str:
    """Return the closing lines of a written config."""
    built = (
        "not built" if no_build else "it loads and builds" if not wrong else f"it does not build: {one_line(wrong[0])}"
    )
    left = sum(remark.value is not ABSENT for remark in made.remarks)
    rest = "everything was carried over" if not left else f"{counted(left, 'setting')} to look at"
    lines = [f"WRITTEN {new}: {counted(count(made.config), 'setting')}; {built}; {rest}"]
    if not wrong:
        lines += [
            f"Prove it: ddq-parity run --family {family} --legacy-repo REPO --legacy-config {old} --new-config {new}"
        ]
    return "\n".join(lines)


def as_dict(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data."""
    return dict(
        same=not found.differences,
        compared=found.compared,
        differences=[difference.as_dict() for difference in found.differences],
        remarks=[remark.as_dict() for remark in found.remarks],
    )


def _difference_lines(difference: Difference) -> Iterator[str]:
    also = "".join(f" (and {key})" for key in difference.also)
    yield from _wrapped(f"{difference.key}{also}", "  ")
    own = difference.written
    is_other = own is not ABSENT and own != difference.old.value
    origin = ""
    if not difference.old_key:
        origin = "  [no such key in the old config]"
    elif is_other or difference.old_key != difference.key:
        origin = f"  [{difference.old_key}{f' = {own!r}' if is_other else ''}]"
    old, new = _sides(difference.old, difference.new)
    yield from _wrapped(f"old: {old}{origin}", "    ")
    yield from _wrapped(f"new: {new}", "    ")
    yield from _wrapped(difference.effect or "What it does to results is not known.", "    ")


def _sides(old: Setting, new: Setting) -> tuple[str, str]:
    """Return both values as text; of two long lists only what differs."""
    values = old.value, new.value
    if all(isinstance(value, list) and len(value) > 8 for value in values):
        return _parted(*values), _parted(*reversed(values))
    return _value(old), _value(new)


def _parted(mine: list[Any], other: list[Any]) -> str:
    places = [place for place, value in enumerate(mine) if place >= len(other) or other[place] != value]
    shown = ", ".join(f"{place}: {mine[place]!r}" for place in places[:4])
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    return f"{len(mine)} items" + (f", of which {shown}{more}" if shown else "")


def _value(setting: Setting) -> str:
    if setting.value is ABSENT:
        return "absent"
    text = one_line(_text(setting.value))
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return f"{text} (by default)" if setting.is_default else text


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"dict({', '.join(f'{key}={_text(item)}' for key, item in value.items())})"
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, (list, tuple)) else repr(value)


def _remark(remark: Remark, indent: str) -> list[str]:
    head, why = _remark_text(remark)
    return list(_wrapped(f"{head} {why}", indent))


def _remark_text(remark: Remark) -> tuple[str, str]:
    shown = "" if remark.value is ABSENT or remark.value is None else f" = {_value(Setting(remark.value))}"
    return f"{remark.key}{shown}:", sentence(remark.why)


def _wrapped(text: str, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
