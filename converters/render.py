"""Turn results into lines of text, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from converters.ledger import DROP, DROP_DUPLICATE, KEEP, RENAME, UNMAPPED, Entry
from converters.parts import LEFT_OUT

if TYPE_CHECKING:
    from converters.api import FileConversion
    from converters.inspection import Inspection
    from converters.parts import Line
    from converters.verification import Verification

_LABEL = 14


def verdict(done: FileConversion) -> str:
    """Return the closing line of a conversion; it starts with CONVERTED and stays one line."""
    shards = f" and {len(done.files) - 1} shards" if len(done.files) > 1 else ""
    return f"CONVERTED {_counts(done)} -> {done.destination.with_name(done.files[-1].name)}{shards}{_parts(done)}"


def plan_lines(done: FileConversion) -> list[str]:
    """Return every key of the plan, and a closing line that starts with PLANNED."""
    planned = f"PLANNED {_counts(done)} -> {done.destination}{_parts(done)}"
    return [*ledger_lines(done.plan.ledger.entries, 2), *part_lines(done.plan.part_lines), planned]


def part_lines(lines: Iterable[Line]) -> list[str]:
    """Return one line per part beside the weights: what became of it."""
    return [f"{line.action} {line.part}: {line.detail}" for line in lines]


def _parts(done: FileConversion) -> str:
    """Say which parts go with the weights, and if some were left out altogether."""
    left = [line.part for line in done.plan.part_lines if line.action == LEFT_OUT and "." not in line.part]
    carried = f" with {', '.join(done.plan.parts)}" if done.plan.parts else ""
    return carried + (f"{',' if carried else ''} without {', '.join(left)}" if left else "")


def _counts(done: FileConversion) -> str:
    ledger = done.plan.ledger
    counts = [
        f"{ledger.count(KEEP)} kept",
        f"{ledger.count(RENAME)} renamed",
        f"{ledger.count(DROP_DUPLICATE)} duplicates dropped",
    ]
    counts += [f"{ledger.count(DROP)} dropped"] if ledger.count(DROP) else []
    counts += [f"{ledger.count(UNMAPPED)} unmapped left out"] if ledger.count(UNMAPPED) else []
    return f"{len(done.plan.state_dict)} tensors: {', '.join(counts)}"


def verified(checked: Verification) -> str:
    """Return the closing line of a verification; it starts with VERIFIED and stays one line."""
    origin = checked.manifest.source[0]
    source = f"source {origin.name} ({origin.sha256[:12]}) not read"
    if checked.source is not None:
        source = f"the same conversion of {checked.source} gives the same"
    return f"VERIFIED {len(checked.manifest.tensors)} tensors of {checked.path}; {source}"


def ledger_lines(entries: Iterable[Entry], verbosity: int) -> list[str]:
    """Return one line per key that changed; per key at all from verbosity 2 on."""
    return [
        f"{entry.action} {entry.source}" + (f" -> {entry.target}" if entry.action == RENAME else "")
        for entry in entries
        if verbosity > 1 or entry.action != KEEP
    ]


def inspection_lines(seen: Inspection) -> list[str]:
    """Return a checkpoint's description, one labelled paragraph per fact."""
    facts = [
        ("file", str(seen.path)),
        ("format", seen.format),
        ("tensors", str(seen.tensors)),
        ("parameters", f"{seen.parameters / 1e6:.2f} M"),
        ("dtypes", ", ".join(f"{dtype} ({count})" for dtype, count in seen.dtypes.items())),
        ("layout", _layout(seen)),
        ("classes", _classes(seen)),
        ("duplicates", _duplicates(seen)),
        ("meta", ", ".join(seen.meta_keys) or "none"),
        ("also holds", ", ".join(seen.other_keys) or "nothing"),
        ("made inert", ", ".join(seen.foreign) or "nothing"),
    ]
    return [line for label, text in facts for line in _paragraph(label, text)]


def _paragraph(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        f"{label:<{_LABEL}}{text}",
        width=79,
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _layout(seen: Inspection) -> str:
    if seen.detection is None:
        return "unknown"
    same = f" (same layout as {', '.join(seen.same_layout_as)})" if seen.same_layout_as else ""
    return f"{seen.detection.family} {seen.detection.variant}, {seen.detection.side} side{same}"


def _classes(seen: Inspection) -> str:
    counts = " and ".join(str(count) for count in seen.classes) or "unknown"
    return f"{counts} (the branches disagree)" if len(seen.classes) > 1 else counts


def _duplicates(seen: Inspection) -> str:
    if not seen.duplicates:
        return "none"
    if not seen.duplicates_differing:
        return f"{len(seen.duplicates)}, all equal to their twins"
    return f"{len(seen.duplicates)}, {len(seen.duplicates_differing)} differ, first {seen.duplicates_differing[0]}"
