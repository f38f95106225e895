"""What a report says of a training: its groups, its schedule, its ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from legacy_adapters.ground.words import counted
from legacy_adapters.training.phases import phase_of

from ..comparing.derived import limits_of
from ..comparing.pairing import LEGACY, NEW
from ..sides.settings import OWN, TWIN
from ..traces.kinds import Kind
from ..verdict.verdict import Verdict
from .sections import cut_list

_SHOWN_STEPS = 10


def training_lines(verdict: Verdict) -> list[str]:
    """Return how the steps of check train were taken, and the optimizers' groups; nothing without that check."""
    provenances = verdict.provenance
    if not provenances[LEGACY].get("steps"):
        return []
    first = provenances[LEGACY]
    orders = {TWIN: "the legacy side's order of parameters on both sides", OWN: "each side's own order of parameters"}
    groups = [
        f"{side} {p.get('optimizer')} with {counted(p.get('optimizer_groups'), 'group')}, "
        f"{p.get('frozen_in_groups')} frozen"
        for side, p in provenances.items()
    ]
    ends = "one endless epoch" if first["epoch_length"] == "endless" else f"epochs of {first['epoch_length']}"
    start = ", each from the legacy side's state" if provenances[NEW].get("forced") else ""
    if provenances[NEW].get("resumed"):
        start += f", from step {first['resume_at'] + 1} on resumed from the legacy side's checkpoint, converted"
    return [
        f"{counted(first['steps'], 'training step')}{start}, in {ends}; clip norm summed in "
        f"{orders[first['clip_order']]}",
        f"  {'; '.join(groups)}: of those only the state afterwards is compared",
        *_rank_lines(provenances),
        *_rounding_lines(rounding_only(verdict)),
    ]


def rounding_only(verdict: Verdict) -> tuple[str, ...]:
    """Return the parameters whose steps show nothing because their gradients are zero but for rounding."""
    findings = ((c.pair.new, c.finding) for c in verdict.comparisons if c.finding is not None)
    return tuple(
        dict.fromkeys(record.name for record, finding in findings if finding.only_rounding and record.kind == Kind.STATE)
    )


def zero_lines(verdict: Verdict) -> list[str]:
    """Name the parameters whose gradients are zero but for rounding, where nothing else is said of them."""
    findings = ((c.pair.new, c.finding) for c in verdict.comparisons if c.finding is not None)
    names = dict.fromkeys(record.name for record, finding in findings if finding.is_zero and record.kind == Kind.GRAD)
    names = [name for name in names if name not in rounding_only(verdict)]
    if not names:
        return []
    have = "has a gradient that is" if len(names) == 1 else "have gradients that are"
    share = limits_of(verdict.provenance[LEGACY].get("amp")).remains
    text = f"{counted(len(names), 'parameter')} {have} zero but for rounding, as float64 shows; else up to {share:.2g} "
    return [cut_list(f"{text}of the layer's largest may be left: ", names)]


def _rounding_lines(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    have = "has a gradient that is" if len(names) == 1 else "have gradients that are"
    whose = "its step is" if len(names) == 1 else "their steps are"
    return [cut_list(f"  {counted(len(names), 'parameter')} {have} only rounding, so {whose} not compared: ", names)]


def _rank_lines(provenances: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return what several ranks were wrapped in and how many objects they had; nothing of a training in one process."""
    first = provenances[LEGACY]
    if not first.get("ranks"):
        return []
    ranks = range(first["ranks"])
    wrapped = {}
    for side, provenance in provenances.items():
        options = dict(provenance.get("wrapper", {}))
        name = options.pop("name", "nothing")
        text = ", ".join(f"{option} {value}" for option, value in sorted(options.items()))
        wrapped.setdefault(f"{name} ({text})" if text else name, []).append(side)
    counts = [
        " and ".join(str(sum(first["objects"].get(phase_of(step, rank), ()))) for rank in ranks)
        for step in range(1, first["steps"] + 1)
    ]
    shown = [*counts[:_SHOWN_STEPS], *(["..."] if len(counts) > _SHOWN_STEPS else [])]
    wrappers = "; ".join(f"{' and '.join(sides)} in {text}" for text, sides in wrapped.items())
    return [
        f"  {len(ranks)} ranks joined by gloo, {wrappers}",
        f"  objects of rank {' and '.join(map(str, ranks))}, step by step: {', '.join(shown)}",
    ]
