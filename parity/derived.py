"""Derived tolerance: a new result may be as far from the float64 reference as the legacy code's own rounding.

Two bounds, each for the largest error and for its root mean square:

- in the precision of the run, ``FACTOR`` times the largest error that the legacy code itself showed over several runs,
  plus a few units in the last place, and at most ``CEILING`` of the record's size; for gradients ``JUMP`` of it; but
  always twice that error;
- in float64, ``FLOAT64_SHARE`` of the rounding allowed for float32. Rounding in float64 is 2^-29 of that in float32, so
  2^-20 leaves 500 times the room that it needs, and still shows what float32 noise would hide.

One run's error is no bound by itself: it is a matter of luck for losses and other small records. With other CPU kernels
the official DDQ-DETR at tiny width made up to 16 times the error of its first run, hence several runs and a factor.
Gradients are worse: where a kink of the model (ReLU, bilinear sampling, a clamp) lies between two roundings they jump,
by up to 13 % of a tensor's size and by 380 times what six runs had shown. In float32 they are checked for sanity only;
the sharp bound is the one in float64, where no kink is that close.

In training every step starts from the legacy side's state, for over several steps errors grow without limit. Averages
of gradients jump as these do, averages of squares as squares do. And what AdamW does with a gradient is nearly its
sign: an element whose gradient is hardly more than rounding may go the other way. So in the precision of the run a
parameter may be off by twice the way that its tensor goes in that step (``MOVES``). In float64 such gradients are far
below AdamW's eps and move nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from legacy_adapters.trace_writer import Record

from .evidence import ZERO, Evidence, Norms, Sample, norms
from .pairing import Pair
from .ties import Margin, margin

FACTOR = 8.0
LAST_PLACES = 4 * 2.0**-23
CEILING = 0.05
JUMP = 0.5
SQUARE_JUMP = (1 + JUMP) ** 2 - 1
MOVES = 2.0
FLOAT64_SHARE = 2.0**-20


def rounding(sample: Sample) -> Norms:
    """Return the error that rounding in the precision of the run explains."""
    size, spread = norms(sample.reference), sample.spread
    return Norms(FACTOR * spread.max + LAST_PLACES * size.max, FACTOR * spread.rms + LAST_PLACES * size.rms)


def bound(sample: Sample, gradient: bool = False, slack: Norms = ZERO) -> Norms:
    """Return the largest error that is accepted in the precision of the run, at least ``slack``."""
    size, explained, spread = norms(sample.reference), rounding(sample), sample.spread
    if gradient:
        allowed = Norms(JUMP * size.max, JUMP * size.rms)
    else:
        allowed = Norms(min(explained.max, CEILING * size.max), min(explained.rms, CEILING * size.rms))
    # what cancels to nearly nothing has more rounding than size
    return allowed | Norms(2 * spread.max, 2 * spread.rms) | slack


@dataclass(frozen=True)
class Finding:
    """How far a record of the new side is from the reference, and how far it may be.

    Attributes:
        error: in the precision of the run.
        allowed: for ``error``.
        error64: in float64.
        allowed64: for ``error64``.
        objection: why it is not accepted; empty if it is.
    """

    error: Norms
    allowed: Norms
    error64: Norms
    allowed64: Norms
    objection: str


def examine(sample: Sample, gradient: bool = False, slack: Norms = ZERO) -> Finding:
    """Measure the new values against the reference and judge them; arguments as of :func:`bound`."""
    explained = rounding(sample)
    allowed64 = Norms(explained.max * FLOAT64_SHARE, explained.rms * FLOAT64_SHARE)
    allowed = bound(sample, gradient, slack)
    error, error64 = norms(sample.new - sample.reference), norms(sample.new_reference - sample.reference)
    runs = (
        ("", sample.new, sample.legacy, error, allowed),
        (" in float64", sample.new_reference, sample.reference, error64, allowed64),
    )
    said = next((text for text in (_objection(*run) for run in runs) if text), "")
    return Finding(error, allowed, error64, allowed64, said)


def _objection(run: str, found: Tensor, expected: Tensor, error: Norms, allowed: Norms) -> str:
    if not torch.equal(_code(found), _code(expected)):
        return f"NaN or Inf in other places{run}"
    for which in ("max", "rms"):
        if not getattr(error, which) <= getattr(allowed, which):
            return f"{which} error{run} {getattr(error, which):.2g}, allowed {getattr(allowed, which):.2g}"
    return ""


def constants() -> dict[str, float]:
    """Return the numbers the bounds are made with, for the report."""
    return dict(
        factor=FACTOR,
        last_places=LAST_PLACES,
        ceiling=CEILING,
        gradient_ceiling=JUMP,
        square_ceiling=SQUARE_JUMP,
        moves=MOVES,
        float64_share=FLOAT64_SHARE,
    )


def follows_gradients(record: Record) -> bool:
    """Tell whether a record jumps where a gradient does, in proportion to it."""
    return record.kind == "grad" or (record.kind, record.slot) in (
        ("optim_state", "exp_avg"), ("clip", "total_norm"),
    )  # fmt: skip


def training_slack(sample: Sample, record: Record, evidence: Evidence) -> Norms:
    """Return the room that jumping gradients take in a legacy record of a training, in the precision of the run."""
    if (record.kind, record.slot) == ("optim_state", "exp_avg_sq"):
        size = norms(sample.reference)
        return Norms(SQUARE_JUMP * size.max, SQUARE_JUMP * size.rms)
    start = evidence.before(record)
    if start is None:
        return ZERO
    moved = norms(sample.reference - start)
    return Norms(MOVES * moved.max, MOVES * moved.rms)


def decision_margin(pair: Pair, evidence: Evidence) -> Margin:
    """Tell how far both decisions are from being right on what the new side decides on; return the worse.

    The legacy decision must be explained by the errors of the basis. So must the new one: else a side that decides
    wrongly on the right numbers would pass.

    Args:
        pair: of tap records, of one slot of the decision.
        evidence: has the whole decision and the errors of its basis.
    """
    new, tap = evidence.new, pair.new
    basis = new.slots(tap.phase, "basis", tap.name, tap.call)
    errors = {}
    for slot, record in basis.items():
        # taps have one name on both sides, so the key is that of the legacy record, too
        sample = evidence.sample(Pair(record, record))
        errors[slot] = 0.0 if sample is None else bound(sample).max
    numbers = {slot: new.tensor(record) for slot, record in basis.items()}
    own = {slot: new.tensor(record) for slot, record in new.slots(*tap.key[:4]).items()}
    legacy = evidence.decision(pair.legacy)
    if "boxes" not in basis and _lengths(legacy) != _lengths(own):
        # only of an NMS does the basis say how many are chosen
        return Margin("length", max(abs(_lengths(legacy)[slot] - length) for slot, length in _lengths(own).items()), 0)
    margins = [margin(decision, numbers, errors) for decision in (legacy, own)]
    return min(margins, key=lambda found: found.is_tie)


def _lengths(decision: Mapping[str, Tensor]) -> dict[str, int]:
    return {slot: len(chosen) for slot, chosen in decision.items()}


def _code(values: Tensor) -> Tensor:
    """Return 0 where finite, 1 NaN, 2 +Inf, 3 -Inf."""
    return values.isnan() * 1 + values.isposinf() * 2 + values.isneginf() * 3
