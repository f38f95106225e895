"""Tell a suggestion: as lines of text, 80 columns wide, and as a file of rules with its evidence as comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.rules import rule_file
from converters.suggesting.compressing import Proposal
from converters.suggesting.links import NAMES, NUMBERS, RUN, Open
from converters.suggesting.suggestion import Suggestion

_WIDTH = 79
_SHOWN = 8  # of what is listed, unless all is asked for
_KNOWN = {NUMBERS: "numbers", RUN: "running both models", NAMES: "names alone"}


@dataclass(frozen=True)
class OpenPattern:
    """Keys that are open in the same way in several blocks.

    Attributes:
        a, b: Patterns of the keys.
        reason: Why they are open.
        count: How many keys of A and of B there are.
        options: Rules that may be, of the first of them, in words.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    reason: str
    count: tuple[int, int]
    options: tuple[str, ...]


def open_patterns(opens: Iterable[Open]) -> tuple[OpenPattern, ...]:
    """Put together what is open in the same way for several numbers of blocks and for weights and biases."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...], str], list[Open]] = {}
    for item in opens:
        name = (_patterns(item.a), _patterns(item.b), item.reason)
        groups.setdefault(name, []).append(item)
    return tuple(
        OpenPattern(
            *((_exact(a, [item.a for item in items]),) * 2 if a == b else (a, b)), reason,
            (sum(len(item.a) for item in items), sum(len(item.b) for item in items)),
            tuple(", ".join(rule.text for rule in option) for option in items[0].options),
        )
        for (a, b, reason), items in groups.items()
    )  # fmt: skip


def _patterns(keys: Iterable[str]) -> tuple[str, ...]:
    """Return keys with wildcards in place of the numbers of blocks, and of the last part."""
    segments = (re.sub(r"(?<=\.)\d+(?=\.)", "*", key).split(".") for key in keys)
    return tuple(dict.fromkeys(".".join([*parts[:-1], "*"]) if len(parts) > 1 else parts[0] for parts in segments))


def _exact(patterns: tuple[str, ...], keys: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return patterns with the last part of the keys, where they have one only."""
    last = {key.rpartition(".")[2] for of_item in keys for key in of_item}
    return tuple(re.sub(r"\.\*$", f".{min(last)}", text) for text in patterns) if len(last) == 1 else patterns


def lines(found: Suggestion, verbose: bool) -> list[str]:
    """Return rules with their evidence, what is open, what is on one side only, and what should be known."""
    sides = zip("AB", (found.a, found.b), found.counts)
    text = [f"{name:<4}{side}, {_count(count, 'tensor')}" for name, side, count in sides]
    for proposal in found.proposals:
        text += _wrapped(proposal.rule.text, "", "     ")
        text += _wrapped(_evidence(proposal, found.unproven), "     ", "     ")
    shown = list(open_patterns(found.opens))
    text += [f"open: {_count(len(shown), 'question')}"] if shown else []
    for item in shown if verbose else shown[:_SHOWN]:
        text += _open_lines(item, verbose)
    text += _more(len(shown), verbose)
    for name, keys in (("A", found.only_a), ("B", found.only_b)):
        text += [f"only in {name}: {_count(len(keys), 'key')}"] if keys else []
        text += [f"  {key}" for key in (keys if verbose else keys[:_SHOWN])] + _more(len(keys), verbose)
    for note in found.notes:
        text += _wrapped(f"note: {note}", "", "")
    return text + (_wrapped(f"proof: {found.proof}", "", "") if found.proof else [])


def verdict(found: Suggestion, out: Path | None) -> str:
    """Return the closing line; it begins with SUGGESTED and stays one line."""
    counts = [f"{found.count(known)} by {words}" for known, words in _KNOWN.items() if found.count(known)]
    open_a = len({key for item in found.opens for key in item.a})
    left = [f"{open_a} open"] if open_a else []
    left += [f"{len(keys)} only in {name}" for name, keys in (("A", found.only_a), ("B", found.only_b)) if keys]
    left += [f"{len(found.opens)} open in B"] if found.opens and not open_a else []
    left += [f"{len(found.unproven)} not proven"] if found.unproven else []
    left += [f"no proof: {found.fault}"] if found.fault else []
    state = ", ".join(left) if left else "complete"
    what = f"{_count(len(found.proposals), 'rule')} for {found.linked} of {_count(found.counts[0], 'tensor')}"
    counted = f" ({', '.join(counts)})" if counts else ""
    return f"SUGGESTED {what}{counted}; {state}{f' -> {out}' if out else ''}"


def file_text(found: Suggestion, suffix: str) -> str:
    """Return a file of rules with their evidence, and behind them, as comments, what is open or on one side only.

    Args:
        found: What to write.
        suffix: Of the file; `.py` gives Python, all others give JSON.
    """
    write = rule_file.dump_python if suffix == ".py" else rule_file.dump
    comments = [_evidence(proposal, found.unproven) for proposal in found.proposals]
    return write(found.rules, comments, tuple(_last(found)))


def _last(found: Suggestion) -> Iterator[str]:
    if found.proof:
        yield f"Proof: {found.proof}"
    for item in open_patterns(found.opens):
        keys = ", ".join(item.a) + (f" and {', '.join(item.b)}" if item.b != item.a else "")
        yield f"Not known: {keys}: {item.reason}"
        yield from (f"  perhaps: {option}" for option in item.options[:_SHOWN])
        if len(item.options) > _SHOWN:
            yield f"  or one of {_count(len(item.options) - _SHOWN, 'more order')}"
    for name, keys in (("A", found.only_a), ("B", found.only_b)):
        yield from (f"Only in {name}: {key}" for key in keys)
    yield from found.notes


def _open_lines(item: OpenPattern, verbose: bool) -> list[str]:
    text = [f"  {key}" for key in _some(item.a, verbose)]
    text += [f"    or {key}" for key in _some(item.b, verbose)] if item.b != item.a else []
    counts = f"{_count(item.count[0], 'key')} of A, {item.count[1]} of B: "
    text += _wrapped(f"{counts}{item.reason}", "     ", "     ")
    options = item.options[: _SHOWN if verbose else 2]
    for option in options:
        text += _wrapped(f"perhaps {option}", "       ", "         ")
    if len(options) < len(item.options):
        text.append(f"       or one of {_count(len(item.options) - len(options), 'more order')}")
    return text


def _some(keys: Sequence[str], verbose: bool) -> list[str]:
    shown = list(keys) if verbose or len(keys) <= _SHOWN else [*keys[: _SHOWN - 1], f"... ({len(keys)})"]
    return shown


def _more(total: int, verbose: bool) -> list[str]:
    return [f"  and {total - _SHOWN} more; --verbose lists all"] if total > _SHOWN and not verbose else []


def _evidence(proposal: Proposal, unproven: Collection[str]) -> str:
    colon = "" if proposal.evidence.startswith("by") else ":"
    text = f"{_count(len(proposal.links), 'key')}{colon} {proposal.evidence}"
    count = sum(key in unproven for link in proposal.links for key in link.rule.sources)
    which = "it has" if len(proposal.links) == 1 else f"{count} of them have" if count > 1 else "1 of them has"
    return text + (f"; not proven, for {which} no effect on the outputs" if count else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _wrapped(text: str, first: str, other: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )
