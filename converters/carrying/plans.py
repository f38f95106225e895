"""What a conversion comes to, before anything is written, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from converters.carrying import parts
from converters.carrying.parts import Line as PartLine
from converters.formats.finite import NotFinite
from converters.formats.stored import StoredTensor
from converters.options import Options
from converters.reading import checkpoint
from converters.rules import detect
from converters.rules.ledger import (
    CHANGED,
    CONCAT,
    DROP,
    DROP_DUPLICATE,
    KEEP,
    LEFT_OUT,
    RENAME,
    UNMAPPED,
    Account,
    Entry,
    Ledger,
)
from converters.rules.mapping import Mapping as KeyMapping


@dataclass(frozen=True)
class Plan:
    """What a conversion comes to, before anything is written.

    Attributes:
        source: The checkpoint as it was read.
        options: What was asked for.
        detection: What the source is.
        rules: The mapping that was applied, in its direction.
        accounts: What becomes of every key of every set of weights; of the one that the output's state dict is made of
            first.
        taken: The tensors of each set, in the same order, by the source's keys.
        state_dict: The tensors to write, by key, sorted.
        changes: For each key whose values are not those of the source: what was done to them, in words.
        parts: What is written beside the state dict and `meta`, by its name at the top level of a `.pth`.
        part_lines: What became of every part of the source.
        meta: The plain metadata to write.
        notes: What the user should know before using the output, in sentences.
        not_finite: How many NaN and infinite numbers a tensor holds, by its key or its place in the output.
    """

    source: checkpoint.Checkpoint
    options: Options
    detection: detect.Detection
    rules: KeyMapping
    accounts: tuple[Account, ...]
    taken: tuple[Mapping[str, StoredTensor], ...]
    state_dict: Mapping[str, StoredTensor]
    meta: Mapping[str, Any]
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)
    part_lines: tuple[PartLine, ...] = ()
    notes: tuple[str, ...] = ()
    not_finite: Mapping[str, NotFinite] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        """What becomes of every key of the set that the output's state dict is made of."""
        return self.accounts[0].ledger

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "source": str(self.source.path),
            "family": self.detection.family,
            "variant": self.detection.variant,
            "from": self.detection.side,
            "to": self.options.to,
            "options": self.options.as_dict(),
            "tensors": len(self.state_dict),
            **_counts(self.ledger),
            "ledger": [self._line(entry, 0) for entry in self.ledger.entries],
            "sets": [
                {
                    **{"name": account.name, "place": account.place, "target": account.target},
                    **_counts(account.ledger),
                    "left_out": account.ledger.count(LEFT_OUT),
                    "ledger": [self._line(entry, number) for entry in account.ledger.entries],
                }
                for number, account in enumerate(self.accounts)
            ],
            "notes": list(self.notes),
            "parts": [asdict(line) for line in self.part_lines],
            "not_finite": {key: asdict(counted) for key, counted in self.not_finite.items()},
        }

    def tensor(self, entry: Entry, number: int = 0) -> StoredTensor:
        """Return the tensor that is written for a line of an account, or the source's where none is, or only a part."""
        written = entry.target is not None and number == 0 and entry.action != CONCAT
        return self.state_dict[entry.target] if written else self.taken[number][entry.source]

    def in_file(self, entry: Entry, number: int = 0) -> str:
        """Return the source key of a line of an account as it is in the source's file."""
        stands = self.accounts[number].place == parts.place(self.source)
        return self.source.wrapping.in_file(entry.source) if stands else entry.source

    def sources_of(self, target: str) -> tuple[str, ...]:
        """Return the keys in the source's file that a key of the output's state dict is made of, in the rule's order."""
        lines = self._lines[target]
        order = self.rules.match(lines[0].source).sources if len(lines) > 1 else (lines[0].source,)
        return tuple(self.in_file(line) for line in sorted(lines, key=lambda line: order.index(line.source)))

    @cached_property
    def _lines(self) -> dict[str, list[Entry]]:
        """The lines of the ledger by their target."""
        found: dict[str, list[Entry]] = {}
        for entry in self.ledger.entries:
            if entry.target is not None:
                found.setdefault(entry.target, []).append(entry)
        return found

    def rule_words(self, entry: Entry) -> str:
        """Say in words what the rule of a line does to its tensor; empty if it does no more than to name it."""
        if entry.action not in CHANGED:
            return ""
        rule, match = self.rules.rules[entry.rule], self.rules.match(entry.source)
        several = match.sources if entry.action == CONCAT else match.targets
        return rule.describe(several.index(entry.source if entry.action == CONCAT else entry.target))

    def changed(self, entry: Entry, number: int = 0) -> tuple[str, ...]:
        """Say what was done to the values of a tensor."""
        return self.changes.get(entry.target, ()) if number == 0 and entry.target is not None else ()

    def _line(self, entry: Entry, number: int) -> dict[str, Any]:
        tensor = self.tensor(entry, number)
        changes = list(self.changed(entry, number))
        return {
            **asdict(entry),
            "source": self.in_file(entry, number),
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "changes": changes,
        }


def _counts(ledger: Ledger) -> dict[str, int]:
    return {
        "kept": ledger.count(KEEP),
        "renamed": ledger.count(RENAME),
        "duplicates_dropped": ledger.count(DROP_DUPLICATE),
        "dropped": ledger.count(DROP),
        "unmapped": ledger.count(UNMAPPED),
        **{action: ledger.count(action) for action in CHANGED if ledger.count(action)},
    }
