"""Tell how close each recorded decision came to being otherwise.

One trace is enough. A decision that only a few units in the last place hold up will fall otherwise on another machine,
with other kernels or another thread count, and nobody is to blame; one that is far from that must be the same anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..traces.kinds import OF_TAPS, Kind
from ..traces.trace import Trace
from .kinds import rule_of
from .rule import Alternative, Rule


@dataclass(frozen=True)
class AuditedDecision:
    """One recorded decision, tried on its own numbers.

    Attributes:
        phase: of the run.
        name: of the tap.
        call: of the tap.
        alternatives: in which ways it could have fallen otherwise; none if nothing else was possible.
        fault: how it breaks its own rule on the numbers it rests on; empty if it does not.
    """

    phase: str
    name: str
    call: int
    alternatives: tuple[Alternative, ...]
    fault: str = ""

    @property
    def place(self) -> str:
        return f"{self.phase} {self.name}#{self.call}"


def audit(trace: Trace) -> tuple[AuditedDecision, ...]:
    """Examine every decision of ``trace`` whose basis was recorded, in recording order.

    Raises:
        TraceError: if a tensor is not what was recorded.
    """
    trace.verify(OF_TAPS)
    calls = dict.fromkeys(record.key[:4] for record in trace.records if record.kind == Kind.TAP and not record.is_float)
    audited = []
    for phase, kind, name, call in calls:
        rule = rule_of(trace.slots(phase, Kind.BASIS, name, call))
        if rule is not None:
            decision = trace.values_of(phase, kind, name, call)
            basis = trace.values_of(phase, Kind.BASIS, name, call)
            audited.append(AuditedDecision(phase, name, call, *_examined(rule, decision, basis)))
    return tuple(audited)


def _examined(
    rule: Rule, decision: Mapping[str, Tensor], basis: Mapping[str, Tensor]
) -> tuple[tuple[Alternative, ...], str]:
    """Return the alternatives of a decision, and how it breaks its rule if it does."""
    own = rule.margin(decision, basis, dict.fromkeys(basis, 0.0))
    if not own.is_tie:
        return (), own.witness or f"{own.quantity} margin {own.value:.2g}"
    return tuple(rule.alternatives(decision, basis)), ""


def by_closeness(decisions: tuple[AuditedDecision, ...]) -> list[tuple[AuditedDecision, Alternative]]:
    """Return every alternative that has a gap above 0, the closest first."""
    pairs = [(decision, one) for decision in decisions for one in decision.alternatives if math.isfinite(one.ulps)]
    return sorted(pairs, key=lambda pair: pair[1].ulps)
