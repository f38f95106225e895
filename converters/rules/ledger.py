"""The account of a conversion: what became of every source key, and where every target key came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from converters.errors import CollisionError, listed

KEEP, RENAME, DROP, DROP_DUPLICATE, UNMAPPED = "keep", "rename", "drop", "drop_duplicate", "unmapped"
SPLIT, CONCAT = "split", "concat"
#: Actions that change tensors.
CHANGED = (SPLIT, CONCAT, "permute", "reshape", "slice", "pad")
LEFT_OUT = "left_out"  # with the whole set of weights that it belongs to


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: one source key and what it became, or the part of it that became one target key.

    Attributes:
        source: The source key; one that was split stands in a line for each of its parts.
        target: The key it became, or became a part of; None where it was left out.
        rule: Index of the rule in the mapping that was applied (on the way back, the inverse mapping); None where no
            rule matched and that was allowed.
        action: `keep`, `rename`, `drop`, `drop_duplicate`, one of `CHANGED`, `unmapped` or `left_out`.
    """

    source: str
    target: str | None
    rule: int | None
    action: str


@dataclass(frozen=True)
class Ledger:
    """All lines of one conversion; every source key is used in it once, and every target key produced once.

    A rule that splits a key uses it once, in the lines of all its parts; one that joins keys produces the whole once.

    Raises:
        CollisionError: If a key is used or produced twice.
    """

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        _refuse_repeats("used", _once(self.entries, SPLIT, "source"))
        _refuse_repeats("produced", _once(self.entries, CONCAT, "target"))

    def of(self, action: str) -> tuple[Entry, ...]:
        """Return the lines with one action."""
        return tuple(entry for entry in self.entries if entry.action == action)

    def count(self, action: str) -> int:
        """Count the source keys with one action."""
        return len({entry.source for entry in self.of(action)})

    @property
    def changes_nothing(self) -> bool:
        """Tell whether every source key is there again under its own name."""
        return all(entry.source == entry.target and entry.action not in CHANGED for entry in self.entries)


@dataclass(frozen=True)
class Account:
    """What became of one set of weights: of a checkpoint with averages there are two.

    Attributes:
        name: What they are: `weights`, or `averaged weights` and `training weights`.
        place: Where they stand in the source.
        target: Where they stand in the output; None if they are left out.
        ledger: A line for each of their keys.
    """

    name: str
    place: str
    target: str | None
    ledger: Ledger

    @classmethod
    def left_out(cls, name: str, place: str, keys: Iterable[str]) -> Account:
        """Account for a set that is left out as a whole."""
        return cls(name, place, None, Ledger(tuple(Entry(key, None, None, LEFT_OUT) for key in sorted(keys))))


def _once(entries: Iterable[Entry], action: str, side: str) -> Iterator[str]:
    """Yield the keys of one side; those of the lines that one rule makes with `action` of one key, once."""
    together = set()
    for entry in entries:
        key = getattr(entry, side)
        if key is None or (entry.rule, key) in together:
            continue
        if entry.action == action:
            together.add((entry.rule, key))
        yield key


def _refuse_repeats(verb: str, keys: Iterable[str]) -> None:
    repeated = [key for key, times in Counter(keys).items() if times > 1]
    if repeated:
        raise CollisionError(
            f"{len(repeated)} key(s) {verb} more than once, expected exactly once: "
            f"{listed(repeated)}; check the rules of the mapping."
        )
