"""Turn results into lines of text, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from converters.carrying.parts import LEFT_OUT
from converters.errors import listed
from converters.formats import finite
from converters.reading.averages import WEIGHTS
from converters.rules import ledger
from converters.rules.ledger import CHANGED, DROP, DROP_DUPLICATE, KEEP, RENAME, UNMAPPED, Account, Entry, Ledger
from legacy_adapters.ground.words import printable

if TYPE_CHECKING:
    from converters.carrying.parts import Line
    from converters.carrying.plans import Plan
    from converters.examining.diff import Diff, Difference, Side
    from converters.examining.inspection import Inspection, WeightSet
    from converters.examining.verification import Verification
    from converters.writing.conversion import FileConversion

_LABEL, _WIDTH = 14, 79
_SHOWN = 6  # keys of a kind, unless all are asked for
_WORDS = {ledger.LEFT_OUT: "left out"}
_DONE = {
    **{"split": "split", "concat": "joined", "permute": "permuted", "reshape": "reshaped"},
    **{"slice": "cut to a part", "pad": "made longer"},
}
_ACTIONS = {DROP_DUPLICATE: "repeated", **_WORDS}  # in a column of the plan


def verdict(done: FileConversion) -> str:
    """Return the closing line of a conversion; it starts with CONVERTED and stays one line."""
    shards = f" and {len(done.files) - 1} shards" if len(done.files) > 1 else ""
    return f"CONVERTED {_counts(done)} -> {done.destination.with_name(done.files[-1].name)}{shards}{_parts(done)}"


def plan_lines(done: FileConversion) -> list[str]:
    """Return a dry run as a table of every tensor of the source, and a closing line that starts with PLANNED."""
    plan, found = done.plan, done.plan.detection
    rows = [_row("action", "dtype", "shape", "tensor")]
    for number, account in enumerate(plan.accounts):
        rows += [[_head(account)]] if len(plan.accounts) > 1 else []
        for entry in account.ledger.entries:
            tensor = plan.tensor(entry, number)
            shape = "x".join(map(str, tensor.shape)) or "scalar"
            rows.append(
                _row(_ACTIONS.get(entry.action, entry.action), tensor.dtype, shape, plan.in_file(entry, number))
            )
            rows += [_row("", "", "", note) for note in _notes(plan, entry, number)]
    total = sum(tensor.nbytes for tensor in plan.state_dict.values())
    return [
        f"{found.port}, {found.side} -> {plan.options.to}",
        *(line for row in rows for line in row),
        *part_lines(plan.part_lines),
        f"PLANNED {_counts(done)}, {total / 1e6:.1f} MB -> {done.destination}{_parts(done)}; nothing written",
    ]


def _head(account: Account) -> str:
    """Say which set of weights the lines below are about."""
    target = f"-> {account.target}" if account.target else "are left out"
    return f"{account.name} of {account.place} {target}"


def _notes(plan: Plan, entry: Entry, number: int) -> list[str]:
    """Say of a tensor what its row has no column for."""
    words = plan.rule_words(entry)
    notes = [f"-> {entry.target}"] if entry.action == RENAME or words else []
    notes += [words] if words else []
    match = plan.rules.match(entry.source) if entry.action == DROP_DUPLICATE else None
    notes += [f"same as {match.twin}"] if match is not None else []
    return [*notes, *plan.changed(entry, number)]


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
    several = len(plan.accounts) > 1
    keys = [
        line
        for number, account in enumerate(plan.accounts)
        for line in [*([f"{_head(account)}:"] if several else []), *ledger_lines(plan, number, verbosity)]
    ]
    changes = [f"change {key}: {'; '.join(done)}" for key, done in plan.changes.items()]
    counts = [f"not finite {key}: {counted}" for key, counted in plan.not_finite.items()]
    return [*keys, *changes, *counts, *part_lines(plan.part_lines)]


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
    sets = {account.name for account in done.plan.accounts}  # of which the counts tell
    parts = [line.part for line in done.plan.part_lines if line.action == LEFT_OUT and "." not in line.part]
    left = [part for part in parts if part not in sets]
    carried = f" with {', '.join(done.plan.parts)}" if done.plan.parts else ""
    return carried + (f"{',' if carried else ''} without {', '.join(left)}" if left else "")


def _counts(done: FileConversion) -> str:
    """Count what became of each set of weights; of two sets, say which of them the output gives to a model."""
    first, *others = done.plan.accounts
    changed = [f"{len(done.plan.changes)} changed"] if done.plan.changes else []
    named = f" ({first.name} of {first.place})" if first.name != WEIGHTS else ""
    counts = f"{len(done.plan.state_dict)} tensors{named}: {', '.join([*_actions(first.ledger), *changed])}"
    for account in others:
        known = f"{len(account.ledger.entries)} {account.name} of {account.place}"
        actions = [action for action in _actions(account.ledger) if not action.startswith("0 ")]
        counts += f"; {known}: {', '.join(actions) if account.target else 'left out'}"
    return counts


def _actions(counted: Ledger) -> list[str]:
    counts = [
        f"{counted.count(KEEP)} kept",
        f"{counted.count(RENAME)} renamed",
        f"{counted.count(DROP_DUPLICATE)} duplicates dropped",
    ]
    counts += [f"{counted.count(action)} {_DONE[action]}" for action in CHANGED if counted.count(action)]
    counts += [f"{counted.count(DROP)} dropped"] if counted.count(DROP) else []
    counts += [f"{counted.count(UNMAPPED)} unmapped left out"] if counted.count(UNMAPPED) else []
    return counts


def verified(checked: Verification) -> str:
    """Return the closing line of a verification; it starts with VERIFIED and stays one line."""
    origin = checked.manifest.source[0]
    source = f"source {origin.name} ({origin.sha256[:12]}) not read"
    if checked.source is not None:
        source = f"the same conversion of {checked.source} gives the same"
    return f"VERIFIED {len(checked.manifest.tensors)} tensors of {checked.path}; {source}"


def ledger_lines(plan: Plan, number: int, verbosity: int) -> list[str]:
    """Return one line per key of an account that changed; per key at all from verbosity 2 on."""
    return [
        f"{_WORDS.get(entry.action, entry.action)} {plan.in_file(entry, number)}"
        + (f" -> {entry.target}" if entry.action in (RENAME, *CHANGED) else "")
        + (f" ({words})" if (words := plan.rule_words(entry)) else "")
        for entry in plan.accounts[number].ledger.entries
        if verbosity > 1 or entry.action not in (KEEP, ledger.LEFT_OUT)
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
    lines += note_lines(note for side in (found.a, found.b) for note in side.notes)
    total = f"{found.equal + differing} tensors"
    return [*lines, f"EQUAL {total}" if found.is_empty else f"DIFFERENT {differing} of {total}"]


def _side_lines(name: str, side: Side) -> list[str]:
    known = side.detection
    what = "unknown layout (--family and what goes with it name one)" if known is None else str(known)
    wrapped = "".join(f"; {fact}" for fact in side.wrapping)
    return [f"{name:<{_LABEL}}{side.path}", *_paragraph("", f"{side.tensors} tensors, {what}{wrapped}")]


def _compared(found: Diff) -> list[tuple[str, str]]:
    sides = (("A", found.a), ("B", found.b))
    left = [
        f"{len(side.duplicates)} duplicates in {name}, equal to {side.repeated}"
        for name, side in sides
        if side.duplicates
    ]
    left += [
        f"{len(side.dropped)} in {name} that the rules drop, {listed(side.dropped)}" for name, side in sides if side.dropped
    ]
    unseen = [f"{', '.join(side.not_compared)} of {name}" for name, side in sides if side.not_compared]
    sets = [f"{', '.join(side.compared)} of {name}" for name, side in sides if side.compared]
    renamed = f", {found.renamed} of them under another key" if found.renamed else ""
    facts = [("weights", "; ".join(sets))] if sets else []
    facts += [("not compared", "; ".join(unseen))] if unseen else []
    facts += [("left out", "; ".join(left))] if left else []
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
        *([("unknown keys", _unknown_keys(seen))] if seen.unknown_keys else []),
        *([("not finite", finite.listed_counts(seen.not_finite))] if seen.not_finite else []),
        ("classes", _classes(seen)),
        *([("weights", _sets(seen))] if seen.sets[0].name != WEIGHTS else []),
        ("duplicates", _duplicates(seen)),
        ("meta", ", ".join(seen.meta_keys) or "none"),
        ("also holds", ", ".join(seen.other_keys) or "nothing"),
        ("made inert", ", ".join(seen.foreign) or "nothing"),
    ]
    return [*(line for label, text in facts for line in _paragraph(label, text)), *note_lines(seen.notes)]


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
    return f"{seen.detection}{same}"


def _unknown_keys(seen: Inspection) -> str:
    return f"{len(seen.unknown_keys)}, which no rule takes: {listed(map(printable, seen.unknown_keys))}"


def _classes(seen: Inspection) -> str:
    counts = " and ".join(str(count) for count in seen.classes) or "unknown"
    return f"{counts} (the branches disagree)" if len(seen.classes) > 1 else counts


def _sets(seen: Inspection) -> str:
    return "; ".join(f"{held.tensors} {held.name} in {held.place}" for held in seen.sets)


def _duplicates(seen: Inspection) -> str:
    """Say of each set that has duplicates whether they repeat it."""
    known = [held for held in seen.sets if held.duplicates]
    if not known:
        return "none"
    if len(seen.sets) == 1:
        return f"{known[0].duplicates}, {_equal(known[0])}"
    return "; ".join(f"{held.duplicates} against the {held.name}: {_equal(held)}" for held in known)


def _equal(held: WeightSet) -> str:
    differing = held.duplicates_differing
    return f"{len(differing)} differ, first {differing[0]}" if differing else "all equal to their twins"
