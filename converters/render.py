"""Turn results into lines of text, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from converters import finite
from converters.ledger import DROP, DROP_DUPLICATE, KEEP, RENAME, UNMAPPED, Entry
from converters.parts import LEFT_OUT

if TYPE_CHECKING:
    from converters.api import FileConversion, Plan
    from converters.diff import Diff, Difference, Side
    from converters.inspection import Inspection
    from converters.parts import Line
    from converters.verification import Verification

_LABEL, _WIDTH = 14, 79
_SHOWN = 6  # keys of a kind, unless all are asked for
_ACTIONS = {DROP_DUPLICATE: "repeated"}  # in a column of the plan


def verdict(done: FileConversion) -> str:
    """Return the closing line of a conversion; it starts with CONVERTED and stays one line."""
    shards = f" and {len(done.files) - 1} shards" if len(done.files) > 1 else ""
    return f"CONVERTED {_counts(done)} -> {done.destination.with_name(done.files[-1].name)}{shards}{_parts(done)}"


def plan_lines(done: FileConversion) -> list[str]:
    """Return a dry run as a table of every tensor of the source, and a closing line that starts with PLANNED."""
    plan, found = done.plan, done.plan.detection
    rows = [_row("action", "dtype", "shape", "tensor")]
    for entry in plan.ledger.entries:
        tensor = plan.tensor(entry)
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        rows.append(_row(_ACTIONS.get(entry.action, entry.action), tensor.dtype, shape, plan.in_file(entry)))
        rows += [_row("", "", "", note) for note in _notes(plan, entry)]
    total = sum(tensor.nbytes for tensor in plan.state_dict.values())
    return [
        f"{found.family} {found.variant}, {found.side} -> {plan.options.to}",
        *(line for row in rows for line in row),
        *part_lines(plan.part_lines),
        f"PLANNED {_counts(done)}, {total / 1e6:.1f} MB -> {done.destination}{_parts(done)}; nothing written",
    ]


def _notes(plan: Plan, entry: Entry) -> list[str]:
    """Say of a tensor what its row has no column for."""
    notes = [f"-> {entry.target}"] if entry.action == RENAME else []
    match = plan.rules.match(entry.source) if entry.action == DROP_DUPLICATE else None
    notes += [f"same as {match.twin}"] if match is not None else []
    return [*notes, *plan.changes.get(entry.target, ())]


def _row(action: str, dtype: str, shape: str, text: str) -> list[str]:
    """Return a row of the plan; a text that does not fit goes on below itself, at a dot."""
    head = f"{f'{action} ':<9}{f'{dtype} ':<9}{f'{shape} ':<14}"
    lines, room = [], _WIDTH - len(head)
    while len(text) > room:
        cut = text.rfind(".", 0, room) + 1 or room
        lines.append(head + text[:cut])
        head, text = " " * len(head), text[cut:]
    return [*lines, (head + text).rstrip()]


def details(plan: Plan, verbosity: int) -> list[str]:
    """Return what becomes of keys, of values and of other parts, a line each; of kept keys from verbosity 2 on."""
    changes = [f"change {key}: {'; '.join(done)}" for key, done in plan.changes.items()]
    counts = [f"not finite {key}: {counted}" for key, counted in plan.not_finite.items()]
    return [*ledger_lines(plan, verbosity), *changes, *counts, *part_lines(plan.part_lines)]


def note_lines(notes: Iterable[str]) -> list[str]:
    """Return notes, each a paragraph."""
    return [
        line
        for note in notes
        for line in textwrap.wrap(f"note: {note}", _WIDTH, break_long_words=False, break_on_hyphens=False)
    ]


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
    counts += [f"{len(done.plan.changes)} changed"] if done.plan.changes else []
    return f"{len(done.plan.state_dict)} tensors: {', '.join(counts)}"


def verified(checked: Verification) -> str:
    """Return the closing line of a verification; it starts with VERIFIED and stays one line."""
    origin = checked.manifest.source[0]
    source = f"source {origin.name} ({origin.sha256[:12]}) not read"
    if checked.source is not None:
        source = f"the same conversion of {checked.source} gives the same"
    return f"VERIFIED {len(checked.manifest.tensors)} tensors of {checked.path}; {source}"


def ledger_lines(plan: Plan, verbosity: int) -> list[str]:
    """Return one line per key that changed; per key at all from verbosity 2 on."""
    return [
        f"{entry.action} {plan.in_file(entry)}" + (f" -> {entry.target}" if entry.action == RENAME else "")
        for entry in plan.ledger.entries
        if verbosity > 1 or entry.action != KEEP
    ]


def diff_lines(found: Diff, verbose: bool) -> list[str]:
    """Return counts, then keys, most important first, and a closing line that starts with EQUAL or DIFFERENT."""
    kinds = {
        "only in A": [[key] for key in found.only_a],
        "only in B": [[key] for key in found.only_b],
        "other shape": [_difference_lines(difference) for difference in found.of("shape")],
        "other dtype": [_difference_lines(difference) for difference in found.of("dtype")],
        "other values": [_difference_lines(difference) for difference in found.of("value")],
    }
    lines = [
        *(line for name, side in (("A", found.a), ("B", found.b)) for line in _side_lines(name, side)),
        *(line for label, text in _compared(found) for line in _paragraph(label, text)),
        *(f"{label:<{_LABEL}}{len(items)}" for label, items in kinds.items() if items),
    ]
    for label, items in kinds.items():
        shown = items if verbose else items[:_SHOWN]
        lines += [label] if items else []
        lines += [f"  {line}" for item in shown for line in item]
        lines += [f"  and {len(items) - len(shown)} more; --verbose lists all"] if len(shown) < len(items) else []
    differing = sum(map(len, kinds.values()))
    total = f"{found.equal + differing} tensors"
    return [*lines, f"EQUAL {total}" if found.is_empty else f"DIFFERENT {differing} of {total}"]


def _side_lines(name: str, side: Side) -> list[str]:
    known = side.detection
    what = "unknown layout" if known is None else f"{known.family} {known.variant}, {known.side} side"
    wrapped = "".join(f"; {fact}" for fact in side.wrapping)
    return [f"{name:<{_LABEL}}{side.path}", *_paragraph("", f"{side.tensors} tensors, {what}{wrapped}")]


def _compared(found: Diff) -> list[tuple[str, str]]:
    sides = (("A", found.a), ("B", found.b))
    left = [f"{len(side.duplicates)} duplicates in {name}" for name, side in sides if side.duplicates]
    unseen = [f"{', '.join(side.not_compared)} of {name}" for name, side in sides if side.not_compared]
    renamed = f", {found.renamed} of them under another key" if found.renamed else ""
    facts = [("not compared", "; ".join(unseen))] if unseen else []
    facts += [("left out", f"{' and '.join(left)}, equal to their twins")] if left else []
    return [*facts, ("compared", f"{found.equal + len(found.differences)}{renamed}"), ("equal", f"{found.equal}")]


def _difference_lines(difference: Difference) -> list[str]:
    one, two = difference.spec_a, difference.spec_b
    keys = [difference.a] if difference.a == difference.b else _arrow(difference.a, difference.b)
    if difference.differing is None:
        return [*keys, f"  {one.dtype} {list(one.shape)} against {two.dtype} {list(two.shape)}"]
    dtypes = "" if one.dtype == two.dtype else f"{one.dtype} against {two.dtype}, "
    counts = f"{difference.differing} of {difference.elements} elements"
    return [*keys, f"  {dtypes}{counts}, by up to {difference.max_abs:.3g}"]


def _arrow(one: str, two: str) -> list[str]:
    line = f"{one} -> {two}"
    return [line] if len(line) < 78 else [one, f"-> {two}"]


def inspection_lines(seen: Inspection) -> list[str]:
    """Return a checkpoint's description, one labelled paragraph per fact."""
    facts = [
        ("file", str(seen.path)),
        ("format", seen.format),
        *([("state dict", "; ".join(seen.wrapping))] if seen.wrapping else []),
        ("tensors", str(seen.tensors)),
        ("parameters", f"{seen.parameters / 1e6:.2f} M"),
        ("dtypes", ", ".join(f"{dtype} ({count})" for dtype, count in seen.dtypes.items())),
        ("layout", _layout(seen)),
        *([("not finite", finite.listed_counts(seen.not_finite))] if seen.not_finite else []),
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
        width=_WIDTH,
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
