"""Tell what of a derived tolerance was measured otherwise, or is wide, and what differs without effect."""

from __future__ import annotations

from legacy_adapters.ground.words import counted

from ..comparing import derived
from ..comparing.compare import Comparison
from ..comparing.pairing import LEGACY
from ..traces.kinds import GRADIENTS
from ..verdict.blame import describe
from ..verdict.harmless import NOTES
from ..verdict.verdict import Verdict
from .stages import record_name


def rounding_lines(verdict: Verdict) -> list[str]:
    """Say of how many records padding was told apart, and how many have too much rounding in half precision."""
    amp = verdict.provenance[LEGACY].get("amp")
    findings = [c.finding for c in verdict.comparisons if c.finding is not None]
    padded = sum(finding.of_images for finding in findings)
    told = f"rounding measured apart from padding in {counted(padded, 'record')}, whose padding is held to its own"
    lines = [told] if padded else []
    jumped = jumped_gradients(verdict)
    if jumped:
        first = jumped[0].pair.new
        lines.append(
            f"{counted(len(jumped), 'gradient')} further off in the precision of the run than rounding explains, though not in "
            f"float64, {first.kind} of `{first.name}` first: a kink (ReLU, clamp, bilinear sampling) between two roundings "
            "does that, and so does a backward that is wrong in that precision only"
        )
    ceiling = derived.limits_of(amp).ceiling
    wide = sum(finding.explained > ceiling * finding.size for finding in findings)
    if amp is None or not wide:
        return lines
    return [
        *lines,
        f"of {counted(len(findings), 'record')} with other bits {wide} {'has' if wide == 1 else 'have'} more rounding "
        f"in {amp} than {ceiling:.0%} of their size: what they compute is judged in float64"
    ]


def jumped_gradients(verdict: Verdict) -> list[Comparison]:
    """Return the gradients that were held to half their size only, for their error is more than rounding."""
    if verdict.provenance[LEGACY].get("amp") is not None:
        return []
    return [
        c for c in verdict.comparisons if c.finding is not None and c.pair.new.kind in GRADIENTS and c.finding.has_jumped
    ]


def without_effect_lines(verdict: Verdict) -> list[str]:
    """Return lines on what differs though nothing that is computed does."""
    lines = []
    if lone := verdict.without_effect:
        lines = [f"passed on differently between methods, without effect: {len(lone)}, first: {describe(lone[0]).message}"]
    for note in NOTES:
        noted = [c for c in verdict.comparisons if c.accepted and c.difference is not None and c.difference.note == note]
        if noted:
            lines.append(f"{note}: {counted(len(noted), 'record')}, {record_name(noted[0].pair.new)} first")
    return lines
