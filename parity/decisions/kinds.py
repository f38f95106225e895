"""All kinds of decisions, told by what was recorded of them, whatever a family calls its taps."""

from __future__ import annotations

from collections.abc import Iterable

from legacy_adapters.recording.kinds import RESULT
from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import Kind
from .assignment import Assignment
from .draw import Draw
from .flooring import Flooring
from .matching import Matching
from .ranking import Ranking
from .rule import DecisionKind, Rule
from .suppression import Suppression

#: The first that a basis is one of counts; what is none of a rule says what a random draw asked for.
KINDS: tuple[DecisionKind, ...] = (Matching(), Suppression(), Ranking(), Flooring(), Assignment(), Draw())
_NUMBERS = frozenset(slot for kind in KINDS if isinstance(kind, Rule) for slot in (*kind.basis, *kind.options))


def kind_of(basis: Iterable[str]) -> DecisionKind | None:
    """Return the kind of a decision by the slots of its basis; None without a basis, as of final results."""
    slots = frozenset(basis)
    return next((kind for kind in KINDS if kind.rests_on(slots)), None)


def rule_of(basis: Iterable[str]) -> Rule | None:
    """Return the rule that a decision follows, by the slots of its basis; None if nothing is decided."""
    kind = kind_of(basis)
    return kind if isinstance(kind, Rule) else None


def is_draw(record: Record) -> bool:
    """Tell whether a record is of a random draw, or of what one asked for."""
    if record.kind == Kind.TAP:
        return record.slot == Draw.slot
    return record.kind == Kind.BASIS and record.slot not in _NUMBERS


def title_of(record: Record) -> str:
    """Return what the records of a tap and of its basis are called in a table."""
    if record.name == RESULT:
        return record.name
    return Draw.title if is_draw(record) else Rule.title
