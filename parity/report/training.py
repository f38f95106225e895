"""What a report says of a training: its groups, its schedule, its ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from legacy_adapters.ground.words import counted
from legacy_adapters.training.phases import phase_of

from ..comparing.pairing import LEGACY, NEW
from ..sides.settings import OWN, TWIN
from ..verdict.verdict import Verdict

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
    ]


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
