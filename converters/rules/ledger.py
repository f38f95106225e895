"""The account of a conversion: what became of every source key, and where every target key came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from converters.errors import CollisionError, listed

KEEP, RENAME, DROP, DROP_DUPLICATE, UNMAPPED = "keep", "rename", "drop", "drop_duplicate", "unmapped"
LEFT_OUT = "left_out"  # with the whole set of weights that it belongs to


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        source: The source key.
        target: The key it became; None where it was left out.
        rule: Index of the rule in the mapping that was applied (on the way back, the inverse mapping); None where no
            rule matched and that was allowed.
        action: `keep`, `rename`, `drop`, `drop_duplicate`, `unmapped` or `left_out`.
    """

    source: str
    target: str | None
    rule: int | None
    action: str


@dataclass(frozen=True)
class Ledger:
    """All lines of one conversion; every source key stands in it once, and every target key once.

    Raises:
        CollisionError: If a key is used or produced twice.
    """

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        _refuse_repeats("used", (entry.source for entry in self.entries))
        _refuse_repeats("produced", (entry.target for entry in self.entries if entry.target is not None))

    def of(self, action: str) -> tuple[Entry, ...]:
        """Return the lines with one action."""
        return tuple(entry for entry in self.entries if entry.action == action)

    def count(self, action: str) -> int:
        """Count the lines with one action."""
        return len(self.of(action))

    @property
    def changes_nothing(self) -> bool:
        """Tell whether every source key is there again under its own name."""
        return all(entry.source == entry.target for entry in self.entries)


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


def _refuse_repeats(verb: str, keys: Iterable[str]) -> None:
    repeated = [key for key, times in Counter(keys).items() if times > 1]
    if repeated:
        raise CollisionError(
            f"{len(repeated)} key(s) {verb} more than once, expected exactly once: "
            f"{listed(repeated)}; check the rules of the mapping."
        )
