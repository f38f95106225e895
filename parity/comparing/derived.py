"""Derived tolerance: a new result may be as far from the float64 reference as the legacy code's own rounding.

Two bounds, each for the largest error and for its root mean square:

- in the precision of the run, ``FACTOR`` times the largest error that the legacy code itself showed over several runs,
  plus a few units in the last place, and at most ``CEILING`` of the record's size; for gradients ``JUMP`` of it; but
  always twice that error;
- in float64, ``FLOAT64_SHARE`` of the rounding allowed for float32. Rounding in float64 is 2^-29 of that in float32, so
  2^-20 leaves 500 times the room that it needs, and still shows what float32 noise would hide.

One run's error is no bound by itself: it is a matter of luck for losses and other small records. With other CPU kernels
an official detector at a small width made up to 16 times the error of its first run, hence several runs and a factor.
Gradients are worse: where a kink of the model (ReLU, bilinear sampling, a clamp) lies between two roundings they jump,
by up to 13 % of a tensor's size and by 380 times what six runs had shown. In float32 they are checked for sanity only;
the sharp bound is the one in float64, where no kink is that close.

In training every step starts from the legacy side's state, for over several steps errors grow without limit. Averages
of gradients jump as these do, averages of squares as squares do. And what AdamW does with a gradient is nearly its
sign: an element whose gradient is hardly more than rounding may go the other way. So in the precision of the run a
parameter may be off by twice the way that its tensor goes in that step (``MOVES``). In float64 such gradients are far
below AdamW's eps and move nothing.

A value may be nothing but rounding, such as the gradient of a bias that the next layer takes away again. In float64 it
is then zero as far as its own bound tells (:func:`only_rounding`). How much is left in the precision of the run depends
on the order of sums, which the legacy code's own runs do not change as a port may. So there it may be ``REMAINS`` of
what else its layer computes (:mod:`.layers`), while float64 demands as sharply as ever that it is zero.

AdamW divides such rounding by itself. So the step of such a parameter proves nothing: in the precision of the run it is
held to as many of the legacy code's own spreads as its gradient, in float64 to ``FACTOR``.

Under autocast a run rounds to half precision, while the references stay in float64 without it. The bounds then follow
from the bits of that precision (:func:`limits_of`). What a model computes is held to a bound in float64 that is as
sharp as ever, and the bound in half precision tells whether it rounds where the legacy code does not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import GRADIENTS, Kind
from ..traces.pieces import doubles, together
from .evidence import ZERO, Evidence, Norms, Sample, Size, distance, gap, norms
from .pairing import Pair

FACTOR = 8.0
LAST_PLACES = 4 * 2.0**-23
CEILING = 0.05
JUMP = 0.5
SQUARE_JUMP = (1 + JUMP) ** 2 - 1
MOVES = 2.0
REMAINS = 2.0**-10
FLOAT64_SHARE = 2.0**-20
#: Largest share of a tensor's size that rounding may explain; more is no measurement of rounding.
LOOSE = 1e-2
#: Bits of a significand, by what autocast computes in; None is float32. Half a last place of 1 is 2 to minus that.
BITS = {None: 24, "fp16": 11, "bf16": 8}
#: What may be nothing but rounding because it cancels.
_MAY_CANCEL = GRADIENTS | {Kind.MODULE_IN, Kind.MODULE_OUT}


@dataclass(frozen=True)
class Limits:
    """The numbers above in one precision.

    Attributes:
        ceiling: ``CEILING``, and so on.
        jump: ``JUMP``.
        square_jump: ``SQUARE_JUMP``.
        remains: ``REMAINS``.
        float64_share: ``FLOAT64_SHARE``, of what the spread explains.
        loose: ``LOOSE``.
        loose_gradient: that of gradients.
    """

    ceiling: float
    jump: float
    square_jump: float
    remains: float
    float64_share: float
    loose: float
    loose_gradient: float


def limits_of(amp: str | None) -> Limits:
    """Return the limits of float32 for None, else those of the precision that autocast computes in.

    A share of a record's size leaves as large a part of the digits right as it does in float32: 0.05 leaves 4.3 of 24
    bits, so 0.37 leaves 1.4 of 8. Rounding in float64 is the same, however coarse that of the run: it is given a share
    of the spread that is smaller by as much as the last place of the run is larger. What is too large to show an error
    is larger by as much: then the bound in float64 is exactly as sharp as it is in a run in float32. For in half
    precision deep layers may be nothing but rounding, and the bound there is for sanity only.
    """
    digits = BITS[amp] / BITS[None]
    coarser = 2.0 ** (BITS[None] - BITS[amp])
    jump = JUMP**digits
    return Limits(
        ceiling=CEILING**digits,
        jump=jump,
        square_jump=(1 + jump) ** 2 - 1,
        remains=REMAINS**digits,
        float64_share=FLOAT64_SHARE / coarser,
        loose=LOOSE * coarser,
        loose_gradient=FACTOR * JUMP * coarser,
    )


def _last_places(sample: Sample) -> float:
    """Return a few units in the last place of what a side computed, which under autocast need not be half precision."""
    half = sample.legacy.dtype in (torch.float16, torch.bfloat16)
    return 4 * torch.finfo(sample.legacy.dtype).eps if half else LAST_PLACES


def bound(sample: Sample, gradient: bool = False, slack: Norms = ZERO) -> Norms:
    """Return the largest error that is accepted in the precision of the run, at least ``slack``."""
    return _bound(norms(sample.reference), sample, gradient, slack)


def _rounding(size: Norms, spread: Norms, last_places: float, share: float = 1.0) -> Norms:
    """Return the error that rounding explains: ``share`` of that in the precision of the run, and last places."""
    factor = FACTOR * share
    return Norms(factor * spread.max + last_places * size.max, factor * spread.rms + last_places * size.rms)


def _bound(size: Norms, sample: Sample, gradient: bool, slack: Norms) -> Norms:
    spread, limits = sample.spread, limits_of(sample.amp)
    explained, ceiling = _rounding(size, spread, _last_places(sample)), limits.ceiling
    if gradient:
        allowed = Norms(limits.jump * size.max, limits.jump * size.rms)
    else:
        allowed = Norms(min(explained.max, ceiling * size.max), min(explained.rms, ceiling * size.rms))
    # what cancels to nearly nothing has more rounding than size
    return allowed | Norms(2 * spread.max, 2 * spread.rms) | slack


def _allowed64(size: Norms, sample: Sample) -> Norms:
    return _rounding(size, sample.spread, FLOAT64_SHARE * LAST_PLACES, limits_of(sample.amp).float64_share)


def only_rounding(sample: Sample) -> bool:
    """Tell whether a value is zero but for rounding: in float64 it is no larger than the error allowed there."""
    if not sample.spread.max > 0.0:
        return False
    size = norms(sample.reference)
    return size.max <= _allowed64(size, sample).max


@dataclass(frozen=True)
class Finding:
    """How far a record of the new side is from the reference, and how far it may be.

    Attributes:
        error: in the precision of the run.
        allowed: for ``error``.
        error64: in float64.
        allowed64: for ``error64``.
        objection: why it is not accepted; empty if it is.
        explained: largest error that is put down to rounding, of which ``allowed64`` is a share.
        size: largest value of the reference.
        share: largest share of a size that rounding may explain here.
        slack: what may be explained beyond that.
        of_images: the other figures are of the places with images, and padding is held to its own rounding.
        only_rounding: of a training: the parameter's gradient is zero but for rounding, so its step shows nothing.
        is_zero: the reference is zero but for rounding.
    """

    error: Norms
    allowed: Norms
    error64: Norms
    allowed64: Norms
    objection: str
    explained: float = 0.0
    size: float = 0.0
    share: float = LOOSE
    slack: float = 0.0
    only_rounding: bool = False
    of_images: bool = False
    is_zero: bool = False

    @property
    def has_jumped(self) -> bool:
        """Tell whether a value was accepted in the precision of the run though rounding does not explain its error."""
        return not self.objection and self.error.max > max(self.explained, self.slack)


def examine(sample: Sample, gradient: bool = False, slack: Norms = ZERO, slack64: Norms = ZERO) -> Finding:
    """Measure the new values against the reference and judge them, piece by piece.

    Args:
        sample: the values.
        gradient: they jump where a gradient does.
        slack: least error that is accepted in the precision of the run.
        slack64: least error that is accepted in float64.
    """
    size, error, error64 = Size(), Size(), Size()
    moved = moved64 = False
    for pieces in together(sample.legacy, sample.reference, sample.new, sample.new_reference):
        legacy, reference, new, new_reference = map(doubles, pieces)
        size.add(reference)
        error.add(gap(new, reference))
        error64.add(gap(new_reference, reference))
        moved = moved or _moved(legacy, new)
        moved64 = moved64 or _moved(reference, new_reference)
    limits = limits_of(sample.amp)
    allowed = _bound(size.norms(), sample, gradient, slack)
    explained = _rounding(size.norms(), sample.spread, _last_places(sample))
    allowed64 = _allowed64(size.norms(), sample) | slack64
    said = _objection("", moved, error.norms(), allowed) or _objection(
        " in float64", moved64, error64.norms(), allowed64
    )
    return Finding(
        error.norms(), allowed, error64.norms(), allowed64, said, explained.max, size.norms().max,
        share=limits.loose_gradient if gradient else limits.loose, slack=FACTOR * slack.max,
    )  # fmt: skip


def too_loose(findings: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Return the findings whose bounds are no measurement of rounding, so that they could hide an error.

    That is a rounding error of more than :data:`LOOSE` of the tensor's size. A tensor that cancels to less than the
    noise of its phase has more rounding than size; it counts against the phase's usual size. Gradients jump by up to
    ``JUMP`` of their size, so their float32 bound is for sanity only; what counts is that in float64, a
    ``FLOAT64_SHARE`` of what is explained: it stays sharp as long as that is at most ``FACTOR`` times such a jump.

    What a step makes of a gradient that is only rounding is told by itself and does not count.

    Args:
        findings: of the records of each phase.
    """
    loose = []
    for ones in findings.values():
        noise = statistics.median(one.explained for one in ones)
        usual = statistics.median(one.size for one in ones)
        for one in ones:
            size = usual if one.size < noise else one.size
            if one.explained > one.share * size + one.slack and not one.only_rounding:
                loose.append(one)
    return loose


def _objection(run: str, moved: bool, error: Norms, allowed: Norms) -> str:
    if moved:
        return f"NaN or Inf in other places{run}"
    for which in ("max", "rms"):
        if not getattr(error, which) <= getattr(allowed, which):
            found, most = told_apart(getattr(error, which), getattr(allowed, which))
            return f"{which} error{run} {found}, allowed {most}"
    return ""


def told_apart(one: float, two: float) -> tuple[str, str]:
    """Write two numbers with as many digits as show that they differ, two at least."""
    for digits in range(2, 18):
        shown = f"{one:.{digits}g}", f"{two:.{digits}g}"
        if shown[0] != shown[1] or one == two:
            break
    return shown


def _moved(legacy: np.ndarray, new: np.ndarray) -> bool:
    """Tell whether NaN or one of the infinities is in other places."""
    return any(not np.array_equal(test(legacy), test(new)) for test in (np.isnan, np.isposinf, np.isneginf))


def constants(amp: str | None) -> dict[str, float]:
    """Return the numbers the bounds are made with, for the report; ``amp`` as in :func:`limits_of`."""
    limits = limits_of(amp)
    return dict(
        factor=FACTOR,
        last_places=LAST_PLACES,
        ceiling=limits.ceiling,
        gradient_ceiling=limits.jump,
        square_ceiling=limits.square_jump,
        moves=MOVES,
        remains=limits.remains,
        float64_share=limits.float64_share,
        loose=limits.loose,
    )


def follows_gradients(record: Record) -> bool:
    """Tell whether a record jumps where a gradient does, in proportion to it."""
    return record.kind in GRADIENTS or (record.kind, record.slot) in (
        (Kind.OPTIM_STATE, "exp_avg"), (Kind.CLIP, "total_norm"),
    )  # fmt: skip


def graded(sample: Sample, gradient: bool, slack: Norms = ZERO) -> Finding:
    """Measure and judge like :func:`examine`; what is padding is held to its own rounding.

    How sharp the bounds are is told where there are images.
    """
    if sample.of_images is None:
        return examine(sample, gradient, slack)
    everywhere, images = (examine(one, gradient, slack) for one in (sample, sample.of_images))
    return replace(images, objection=images.objection or everywhere.objection, of_images=True)


def training_slack(sample: Sample, record: Record, evidence: Evidence) -> Norms:
    """Return the room that jumping gradients take in a legacy record of a training, in the precision of the run."""
    if (record.kind, record.slot) == (Kind.OPTIM_STATE, "exp_avg_sq"):
        size, jump = norms(sample.reference), limits_of(sample.amp).square_jump
        return Norms(jump * size.max, jump * size.rms)
    start = evidence.before(record)
    if start is None:
        return ZERO
    moved = distance(sample.reference, start)
    return Norms(MOVES * moved.max, MOVES * moved.rms)


def judged(sample: Sample, pair: Pair, evidence: Evidence, layer_size: Callable[[Record], float]) -> Finding:
    """Measure and judge like :func:`examine`, with the room that jumps, steps and rounding take.

    Args:
        sample: the values of the pair.
        pair: of float records.
        evidence: that the sample is from.
        layer_size: as :meth:`.layers.Layers.size`.
    """
    record = pair.legacy
    slack, gradient = training_slack(sample, record, evidence), follows_gradients(record)
    is_cause = record.kind in _MAY_CANCEL
    cause = sample if is_cause else evidence.gradient(pair)
    if cause is None or not only_rounding(cause):
        return graded(sample, gradient, slack)
    remains = limits_of(sample.amp).remains * layer_size(pair.new if is_cause else replace(pair.new, kind=Kind.GRAD))
    factor = max(FACTOR, remains / cause.spread.max)
    if record.kind == Kind.OPTIM_STATE:
        factor **= 2  # squares of gradients are off by the square of what these are
    room = _times(factor, sample.spread)
    finding = examine(sample, gradient, slack | room, _times(FACTOR, sample.spread) if record.kind == Kind.STATE else ZERO)
    if is_cause:
        zero = f"{finding.objection}; on the legacy side it is zero but for rounding, as float64 shows"
        return replace(finding, is_zero=True, objection=zero if finding.objection else "")
    return replace(finding, only_rounding=True)


def _times(factor: float, size: Norms) -> Norms:
    return Norms(factor * size.max, factor * size.rms)
