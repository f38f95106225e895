"""What is proposed for two checkpoints: rules with their evidence, what is open, and what is on one side only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converters.errors import ConversionError
from converters.formats.stored import StoredTensor
from converters.reading import checkpoint
from converters.rules.kinds import Rule
from converters.rules.mapping import Mapping as KeyMapping
from converters.suggesting import finding
from converters.suggesting.compressing import Proposal, compress
from converters.suggesting.links import NAMES, Findings, Open
from converters.suggesting.precision import rounded
from converters.suggesting.tensors import Side


@dataclass(frozen=True)
class Suggestion:
    """What is proposed.

    Attributes:
        a, b: What the sides are called, such as files.
        counts: How many tensors A and B have.
        proposals: Rules, in the order of A's keys.
        opens: What is not known.
        only_a, only_b: Keys that nothing of the other side may belong to.
        notes: What should be known before the rules are used, in sentences.
        proof: What running both models said, in a sentence; None where nothing was run.
        fault: Why that is no proof although both models should have been run, in a phrase; None otherwise.
        unproven: Keys of A that have a rule of which equal outputs say nothing.
    """

    a: str
    b: str
    counts: tuple[int, int]
    proposals: tuple[Proposal, ...]
    opens: tuple[Open, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...] = ()
    proof: str | None = None
    fault: str | None = None
    unproven: tuple[str, ...] = ()
    findings: Findings = field(default_factory=Findings, compare=False, repr=False)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules alone."""
        return tuple(proposal.rule for proposal in self.proposals)

    @property
    def is_complete(self) -> bool:
        """Tell whether every key of both sides has a rule, and running the models left no doubt of one."""
        return not (self.opens or self.only_a or self.only_b or self.fault or self.unproven)

    @property
    def linked(self) -> int:
        """How many keys of A have a rule."""
        return len(self.findings.linked_a)

    def count(self, known: str) -> int:
        """Count the keys of A whose rule is known in a way."""
        return sum(len(link.rule.sources) for link in self.findings.links if link.known == known)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "a": {"name": self.a, "tensors": self.counts[0], "only": list(self.only_a)},
            "b": {"name": self.b, "tensors": self.counts[1], "only": list(self.only_b)},
            "rules": [
                {
                    "rule": proposal.rule.text,
                    "keys": len(proposal.links),
                    "evidence": proposal.evidence,
                    "certain": proposal.is_certain,
                }
                for proposal in self.proposals
            ],
            "open": [
                {
                    "a": list(item.a),
                    "b": list(item.b),
                    "reason": item.reason,
                    "options": [[rule.text for rule in option] for option in item.options],
                }
                for item in self.opens
            ],
            "complete": self.is_complete,
            "by_names_alone": self.count(NAMES),
            "notes": list(self.notes),
            "proof": self.proof,
            "fault": self.fault,
            "unproven": list(self.unproven),
        }


def suggest_files(
    a: str | Path, b: str | Path, keys: tuple[str | None, str | None] = (None, None),
    prefixes: tuple[str | None, str | None] = (None, None),
) -> Suggestion:  # fmt: skip
    """Propose rules from the keys of one checkpoint to those of another.

    Args:
        a, b: The files, of any format that is read.
        keys: The key that the state dict stands under, of either file; None finds it.
        prefixes: What its keys begin with, likewise.

    Raises:
        CheckpointError: If one of them cannot be read as a checkpoint.
        OSError: If one of them cannot be read at all.
    """
    one, other = (checkpoint.read(path, key, prefix).state_dict for path, key, prefix in zip((a, b), keys, prefixes))
    return suggest(one, other, str(a), str(b))


def suggest(
    a: Mapping[str, StoredTensor], b: Mapping[str, StoredTensor], name_a: str = "A", name_b: str = "B"
) -> Suggestion:  # fmt: skip
    """Propose rules from the keys of one state dict to those of another.

    Args:
        a, b: The tensors by key.
        name_a, name_b: What the two are called.

    Raises:
        CheckpointError, OSError: If a tensor cannot be read.
    """
    alike = rounded(a, b)
    sides = Side.of("A", alike.a, alike.is_comparable), Side.of("B", alike.b, alike.is_comparable)
    found = finding.find(*sides)
    notes = (*([alike.note] if alike.note else []), *(found.notes if alike.is_comparable else ()))
    return told(*sides, replace(found, notes=notes), name_a, name_b)


def told(
    a: Side, b: Side, found: Findings, name_a: str, name_b: str, proof: str | None = None, fault: str | None = None,
    unproven: tuple[str, ...] = (),
) -> Suggestion:  # fmt: skip
    """Make rules of what is known of two sides.

    Raises:
        ConversionError: If the rules contradict each other, which is an error of this package.
    """
    proposals = compress(found.links, tuple(a.tensors))
    only_a = finding.unmatched(a, found.linked_a, found.opens)
    only_b = finding.unmatched(b, found.linked_b, found.opens)
    rules = tuple(proposal.rule for proposal in proposals)
    _check(rules, found)
    counts = len(a.tensors), len(b.tensors)
    said = found.notes, proof, fault, unproven
    return Suggestion(name_a, name_b, counts, proposals, found.opens, only_a, only_b, *said, found)


def _check(rules: tuple[Rule, ...], found: Findings) -> None:
    """Refuse rules that do not say of every key what was found."""
    mapping = KeyMapping("suggested", rules)
    for link in found.links:
        for key in link.rule.sources:
            match = mapping.match(key)
            if match is None or match.targets != link.rule.targets or match.sources != link.rule.sources:
                raise ConversionError(f"The rules that were made do not say of `{key}` what was found of it.")
