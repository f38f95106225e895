"""What is known of single keys before it becomes rules: which belong together, how that is known, and what is open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converters.rules.kinds import Rule

#: How a link is known, the surest first.
NUMBERS, RUN, NAMES = "numbers", "run", "names"


@dataclass(frozen=True)
class Link:
    """A rule between keys themselves, without wildcards.

    Attributes:
        rule: The rule.
        known: How it is known: by equal `numbers`, by a `run` of both models, or by `names` (and shapes and structure).
        reason: Why, in a phrase.
    """

    rule: Rule
    known: str
    reason: str

    @property
    def is_certain(self) -> bool:
        """Tell whether more than names says so."""
        return self.known != NAMES


@dataclass(frozen=True)
class Open:
    """Keys of which it is not known which belong together.

    Attributes:
        a: Keys of the one side.
        b: Keys of the other side.
        reason: Why it is open, in a phrase.
        options: What may be, each a set of rules between keys; empty where there are too many to write down.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    reason: str
    options: tuple[tuple[Rule, ...], ...] = ()


@dataclass(frozen=True)
class Findings:
    """What is known of two sides.

    Attributes:
        links: What belongs together.
        opens: What may belong together.
        notes: What else should be known, in sentences.
    """

    links: tuple[Link, ...] = ()
    opens: tuple[Open, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def linked_a(self) -> set[str]:
        """The keys of A that have a rule."""
        return {key for link in self.links for key in link.rule.sources}

    @property
    def linked_b(self) -> set[str]:
        """The keys of B that have a rule."""
        return {key for link in self.links for key in link.rule.targets}


def without(keys: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return the keys that are not taken, in their order."""
    gone = set(taken)
    return [key for key in keys if key not in gone]
