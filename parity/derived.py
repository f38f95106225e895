"""Derived tolerance: a new result may be as far from the float64 reference as the legacy code's own rounding.

Two bounds, each for the largest error and for its root mean square:

- in the precision of the run, ``FACTOR`` times the largest error that the legacy code itself showed over several runs,
  plus a few units in the last place, and never more than ``CEILING`` of the record's size;
- in float64, ``FLOAT64_SHARE`` of that. Rounding in float64 is 2^-29 of that in float32, so 2^-20 leaves 500 times
  the room that rounding needs, and still shows what float32 noise would hide.

One run's error is no bound by itself: it is a matter of luck for losses and other small records, and where a kink of
the model (ReLU, bilinear sampling, a clamp) lies between two roundings the gradients jump. Measured on the official
DDQ-DETR at tiny width, other CPU kernels gave up to 16 times the error of the first run, and 2 times is exceeded by
4 % of the records. So the errors of several runs are taken, and the sharp bound is the one in float64.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .evidence import Evidence, Norms, Sample, norms
from .pairing import Pair
from .ties import Margin, margin

FACTOR = 8.0
LAST_PLACES = 4 * 2.0**-23
CEILING = 0.05
FLOAT64_SHARE = 2.0**-20


def bound(sample: Sample) -> Norms:
    """Return the largest error that is accepted in the precision of the run."""
    size, spread = norms(sample.reference), sample.spread
    return Norms(
        *(
            min(FACTOR * error + LAST_PLACES * scale, CEILING * scale)
            for error, scale in ((spread.max, size.max), (spread.rms, size.rms))
        )
    )


def objection(sample: Sample) -> str:
    """Say why the new values are not accepted; empty if they are."""
    for name, found, expected in (
        ("", sample.new, sample.legacy),
        (" in float64", sample.new_reference, sample.reference),
    ):
        if not torch.equal(_code(found), _code(expected)):
            return f"NaN or Inf in other places{name}"
    allowed = bound(sample)
    error = norms(sample.new - sample.reference)
    if error.max > allowed.max or error.rms > allowed.rms:
        which = "max" if error.max > allowed.max else "rms"
        return _message("", which, error, allowed)
    allowed64 = Norms(allowed.max * FLOAT64_SHARE, allowed.rms * FLOAT64_SHARE)
    error64 = norms(sample.new_reference - sample.reference)
    if error64.max > allowed64.max or error64.rms > allowed64.rms:
        which = "max" if error64.max > allowed64.max else "rms"
        return _message(" in float64", which, error64, allowed64)
    return ""


def decision_margin(pair: Pair, evidence: Evidence) -> Margin:
    """Tell how far the legacy decision is from being right on what the new side decides on.

    Args:
        pair: of tap records, of one slot of the decision.
        evidence: has the whole decision and the errors of its basis.
    """
    wanted = (pair.new.phase, "basis", pair.new.name, pair.new.call)
    twins = [record for record in evidence.new.records if record.key[:4] == wanted]
    errors = {}
    for twin in twins:
        legacy = replace(twin, digest="")  # taps have one name on both sides, so the keys are equal
        sample = evidence.sample(Pair(legacy, twin))
        errors[twin.slot] = 0.0 if sample is None else bound(sample).max
    basis = {twin.slot: evidence.new.tensor(twin) for twin in twins}
    return margin(evidence.decision(pair.legacy), basis, errors)


def _message(run: str, which: str, error: Norms, allowed: Norms) -> str:
    return f"{which} error{run} {getattr(error, which):.2g}, allowed {getattr(allowed, which):.2g}"


def _code(values: torch.Tensor) -> torch.Tensor:
    """Return 0 where finite, 1 NaN, 2 +Inf, 3 -Inf."""
    return values.isnan() * 1 + values.isposinf() * 2 + values.isneginf() * 3
