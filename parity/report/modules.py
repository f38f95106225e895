"""The modules of a model as a tree, each with what was compared in it and below."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison
from ..comparing.derived import Finding
from ..traces.kinds import Kind, Subject
from .stages import is_choice


@dataclass(frozen=True)
class Module:
    """A module and everything below it.

    Attributes:
        path: on the new side; empty for the whole model.
        records: compared.
        identical: with the same bits.
        accepted: equal under the tolerance.
        worst: position of the comparison with the largest error; None if all are identical.
        first: position of the first that is not accepted; None if all are.
    """

    path: str
    records: int
    identical: int
    accepted: int
    worst: int | None
    first: int | None

    @property
    def level(self) -> int:
        """Return how deep it lies: 0 for the whole model."""
        return len(self.path.split(".")) if self.path else 0


def module_of(record: Record) -> str:
    """Return the path of the module that a record belongs to; empty for the model's own code."""
    subject = Kind(record.kind).subject
    if subject is Subject.MODULE:
        return record.name
    if subject is Subject.PARAMETER:
        return record.name.rpartition(".")[0]
    return record.scope


def modules(comparisons: Sequence[Comparison], forgiven: Iterable[Comparison] = ()) -> tuple[Module, ...]:
    """Count per module what was compared in it and below, each module before what is in it, in the order they first ran.

    Args:
        comparisons: all pairs, in order of execution.
        forgiven: those that are not accepted and no mismatch all the same, see :attr:`Verdict.without_effect`.
    """
    below: dict[str, list[int]] = {"": []}
    for position, comparison in enumerate(comparisons):
        for path in _paths(module_of(comparison.pair.new)):
            below.setdefault(path, []).append(position)
    harmless = {id(comparison) for comparison in forgiven}
    good = [comparison.accepted or id(comparison) in harmless for comparison in comparisons]

    def size(position: int) -> tuple[bool, float]:
        return not good[position], strain(comparisons[position])

    order = {path: number for number, path in enumerate(below)}
    return tuple(
        Module(
            path,
            len(positions := below[path]),
            sum(comparisons[position].identical for position in positions),
            sum(good[position] for position in positions),
            max((position for position in positions if not comparisons[position].identical), key=size, default=None),
            next((position for position in positions if not good[position]), None),
        )
        for path in sorted(below, key=lambda path: [order[part] for part in _paths(path)])
    )


def _paths(path: str) -> list[str]:
    """Return the paths of the whole model, of the modules that a module is in, outermost first, and its own."""
    parts = path.split(".") if path else []
    return ["", *(".".join(parts[: count + 1]) for count in range(len(parts)))]


def strain(comparison: Comparison) -> float:
    """Return how large an error is: under a derived tolerance as a share of what is allowed, else in absolute terms.

    It is infinite where there is no number: another shape, another decision.
    """
    if comparison.identical or comparison.difference is None:
        return 0.0
    if comparison.finding is not None:
        return share_of_allowed(comparison.finding)
    gap = comparison.difference.max_abs
    return math.inf if math.isnan(gap) or is_choice(comparison) else gap


def share_of_allowed(finding: Finding) -> float:
    """Return the largest error as a share of its bound, over both norms and both precisions; at most 1 is accepted."""
    pairs = ((finding.error, finding.allowed), (finding.error64, finding.allowed64))
    return max(
        _share(error, bound)
        for one, two in pairs
        for error, bound in ((one.max, two.max), (one.rms, two.rms))
    )


def _share(error: float, bound: float) -> float:
    if bound > 0 and math.isfinite(error):
        return error / bound
    return 0.0 if error == 0 else math.inf
