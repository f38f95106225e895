"""The account of a conversion: what became of every source key, and where every target key came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from converters.errors import CollisionError, listed

KEEP, RENAME, DROP, DROP_DUPLICATE, UNMAPPED = "keep", "rename", "drop", "drop_duplicate", "unmapped"


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        source: The source key.
        target: The key it became; None where it was left out.
        rule: Index of the rule in the mapping that was applied (on the way back, the inverse mapping); None where no
            rule matched and that was allowed.
        action: `keep`, `rename`, `drop`, `drop_duplicate` or `unmapped`.
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


def _refuse_repeats(verb: str, keys: Iterable[str]) -> None:
    repeated = [key for key, times in Counter(keys).items() if times > 1]
    if repeated:
        raise CollisionError(
            f"{len(repeated)} key(s) {verb} more than once, expected exactly once: "
            f"{listed(repeated)}; check the rules of the mapping."
        )
