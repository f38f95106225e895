"""Compare what both sides change of the batch that they are given."""

from __future__ import annotations

from ..comparing.pairing import LEGACY, NEW
from ..traces.trace import Recording
from .blame import DETECTOR, Divergence


def changed_inputs(legacy: Recording, new: Recording) -> Divergence | None:
    """Return the first input that one side alone changes in place; None if there is none."""
    changed = {
        side: [tuple(entry) for entry in recording.coverage.get("changed_inputs", ())]
        for side, recording in ((LEGACY, legacy), (NEW, new))
    }
    for side, other in ((NEW, LEGACY), (LEGACY, NEW)):
        for phase, name in changed[side]:
            if (phase, name) not in changed[other]:
                what = f"The {side} side changes its input `{name}` in place (the {phase} phase)"
                return Divergence(DETECTOR, None, f"{what}, the {other} side does not.", None)
    return None
