"""The results of a zoo as lines for a terminal, as Markdown and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from legacy_adapters.ground.words import counted

from . import result
from .result import Result

_WIDTH, _INDENT = 80, 13
_WORDS = {
    result.MATCH: "{} match",
    result.DEVIATION: "{} match with known deviations undone",
    result.MISMATCH: "{} differ",
    result.INCOMPARABLE: "{} not comparable",
    result.UNSUPPORTED: "{} not supported",
    result.TIMEOUT: "{} out of time",
    result.ERROR: "{} failed",
}


def lines(one: Result) -> list[str]:
    """Return a result as lines of at most 80 characters."""
    told = [f"{one.verdict:<{_INDENT - 1}} {one.name}"]
    for text in filter(None, (_figures(one), one.why)):
        told += wrap(text, _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT)
    return told


def _figures(one: Result) -> str:
    """Return what was compared, and how."""
    if not one.tolerance:
        return ""
    equal = f"{one.identical} of {counted(one.records, 'record')} bit-identical"
    how = "exact" if one.tolerance == "exact" else "within rounding" if one.verdict in _FINE else one.tolerance
    sizes = " ".join(f"{height}x{width}" for height, width in one.sizes)
    parts = [how, equal, f"{'+'.join(map(str, one.detections)) or 'no'} detections", f"images {sizes}", width_of(one)]
    return ", ".join([*parts, *([one.undone] if one.undone else [])])


_FINE = (result.MATCH, result.DEVIATION)


def width_of(one: Result) -> str:
    """Return how wide the model was, in words."""
    return "whole width" if one.width == 1 else f"width 1/{1 / one.width:g}"


def closing_line(results: Sequence[Result]) -> str:
    """Return the counts in one line that begins with the verdict."""
    counts = Counter(one.verdict for one in results)
    told = ", ".join(_WORDS[name].format(counts[name]) for name in result.ORDER if counts[name])
    kinds = {one.architecture for one in results}
    fine = {one.architecture for one in results if one.verdict in _FINE}
    return f"{verdict(results)} {len(fine)} of {counted(len(kinds), 'architecture')}; of {counted(len(results), 'config')} {told}"


def verdict(results: Sequence[Result]) -> str:
    """Return ``MISMATCH`` if any config differs; ``MATCH`` if some match and all were tried; else ``INCOMPARABLE``."""
    seen = {one.verdict for one in results}
    if result.MISMATCH in seen:
        return result.MISMATCH
    return result.MATCH if seen & set(_FINE) and not seen & {result.TIMEOUT, result.ERROR} else result.INCOMPARABLE


def as_dict(results: Sequence[Result]) -> dict[str, Any]:
    """Return plain data."""
    return dict(
        verdict=verdict(results), summary=closing_line(results), counts=Counter(one.verdict for one in results),
        results=[one.as_dict() for one in results],
    )  # fmt: skip


def markdown(results: Sequence[Result]) -> str:
    """Return a table of all results, the best first."""
    ordered = sorted(results, key=lambda one: (result.ORDER.index(one.verdict), one.name))
    return "\n".join([closing_line(results), "", *_rows(ordered)]) + "\n"


def _rows(results: Sequence[Result]) -> Iterator[str]:
    yield "| config | of | verdict | bit-identical | detections | remarks |"
    yield "|---|---|---|---|---|---|"
    for one in results:
        equal = f"{one.identical} of {one.records}" if one.records else ""
        width = "whole width" if one.records and one.width == 1 else ""
        told = "; ".join(filter(None, [one.undone, one.why, width])).replace("|", "/")
        found = " + ".join(map(str, one.detections))
        yield f"| `{one.name.removesuffix('.py')}` | {one.architecture} | {one.verdict} | {equal} | {found} | {told} |"
