"""Differences of precision: numbers rounded to half precision, TF32, or to another type."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .kinds import Diagnosis, DiagnosisKind
from .scene import Scene

#: Bits of a float32's significand that are zero after rounding.
_LOST = {"bf16": 16, "fp16": 13, "TF32": 13}
_LEAST = 8
#: Half the largest distance of two rounded numbers, as a share of them.
_HALF_STEP = {"bf16": 2.0**-8, "fp16": 2.0**-11, "TF32": 2.0**-11}
#: What a sigmoid was given is known to so many units; a share of a step that is far less than one.
_UNITS, _CLEAR = 8, 0.1
#: Of numbers that nobody has rounded, this share at most may look so.
_BY_CHANCE = 0.5


def to_tf32(tensor: Tensor) -> Tensor:
    """Round to the nearest number with 10 bits of significand, ties to even."""
    bits = tensor.detach().float().contiguous().view(torch.int32)
    odd = (bits >> 13) & 1
    return ((bits + 0xFFF + odd) & ~0x1FFF).view(torch.float32)


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "fp16": lambda x: x.half().to(x.dtype),
    "bf16": lambda x: x.bfloat16().to(x.dtype),
    "TF32": lambda x: to_tf32(x).to(x.dtype),
}


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield the precision that one side's numbers are rounded to, if those of the other are not."""
    legacy, new = scene.tensors
    if legacy.shape != new.shape or legacy.dtype != new.dtype or legacy.dtype not in (torch.float32, torch.float64):
        return
    for exact, coarse, whose in ((legacy, new, "new"), (new, legacy, "legacy")):
        names = []
        for name, rounding in ROUNDINGS.items():
            if torch.equal(rounding(exact), coarse) and _are_rounded(coarse, exact, name):
                names.append(name)
        if names:
            grid = grid_words(exact, coarse)
            other = "legacy" if whose == "new" else "new"
            text = f"the {whose} side's numbers are the {other} side's rounded to {' or '.join(names)}{grid}"
            yield scene.diagnosis(DiagnosisKind.PRECISION, text, 0.0, 5)
            return
    for exact, coarse, whose in ((legacy, new, "new"), (new, legacy, "legacy")):
        names = rounded_before_sigmoid(exact.double(), coarse.double(), 2.0**-24 if new.dtype == torch.float32 else 2.0**-53)
        if names:
            text = f"{before_sigmoid(whose)} rounded to {' or '.join(names)}"
            yield scene.diagnosis(DiagnosisKind.PRECISION, text, 0.0, 6)


def before_sigmoid(whose: str) -> str:
    """Say of which side the rounding is."""
    other = "legacy" if whose == "new" else "new"
    return f"the {whose} side's numbers are the sigmoid of what the {other} side has before it"


def rounded_before_sigmoid(exact: Tensor, coarse: Tensor, unit: float, also: Tensor | None = None) -> list[str]:
    """Return the precisions that what a sigmoid was given may have been rounded to, on one side only.

    A result ``p`` tells what it is of up to some units in its last place, divided by ``1 - p``. Only numbers of which
    that is far less than the distance of two rounded ones are looked at, and these must be many.

    Args:
        exact: results of the side that did not round, float64.
        coarse: the same results of the other.
        unit: relative rounding of one result.
        also: all results of the side that rounded, where these are but samples of them; they must all be rounded.
    """
    if exact.shape != coarse.shape or not all(bool(((one > 0) & (one < 1)).all()) for one in (exact, coarse)):
        return []
    names = []
    for name, rounding in ROUNDINGS.items():
        grids = [_on_grid(values, rounding, unit) for values in (coarse if also is None else also, exact)]
        before, known = (torch.logit(values.flatten()) for values in (exact, coarse))
        steps = before.abs().clamp(min=1e-30) * _HALF_STEP[name]
        told = _UNITS * unit / (1 - exact.flatten()) < _CLEAR * steps
        off = (rounding(before.float()).double() - known).abs()
        # a number half way between two rounded ones may be rounded to either
        near = (known - before).abs() <= 1.01 * steps + _UNITS * unit / (1 - exact.flatten())
        if int(told.sum()) < _LEAST or not near[told].all() or len(torch.unique(known[told])) < _LEAST:
            continue
        if grids[0] == 1.0 and grids[1] < _BY_CHANCE and float((off[told] <= steps[told] * _CLEAR).double().mean()) > 0.9:
            names.append(name)
    return names


def _on_grid(values: Tensor, rounding: Callable[[Tensor], Tensor], unit: float) -> float:
    """Return the share of a sigmoid's results that may be of rounded numbers, of those that can tell."""
    before = torch.logit(values.flatten())
    rounded = rounding(before.float()).double()
    known = _UNITS * unit / (1 - values.flatten())
    told = known < _CLEAR * before.abs() * min(_HALF_STEP.values())
    return float(((before - rounded).abs() <= known)[told].double().mean()) if bool(told.any()) else 0.0


def grid_words(exact: Tensor, coarse: Tensor) -> str:
    """Say which even grid, by a power of two, numbers are rounded to as well; empty if none gives these.

    Within one power of two half precision is such a grid. Only numbers of several tell the two apart.
    """
    few, many = coarse.double(), exact.double()
    largest = float(few.abs().max())
    if not np.isfinite(largest) or largest == 0.0:
        return ""
    top = int(np.floor(np.log2(largest)))
    for power in range(top, top - 12, -1):
        step = 2.0**power
        if torch.equal(torch.round(many / step) * step, few):
            return f", or to multiples of {step:g}" if power >= 0 else f", or to multiples of 1/{2**-power}"
    return ""


def _are_rounded(coarse: Tensor, exact: Tensor, name: str) -> bool:
    if len(torch.unique(coarse)) < _LEAST:
        return False
    return _share_with_zeros(coarse, name) == 1.0 and _share_with_zeros(exact, name) < _BY_CHANCE


def _share_with_zeros(tensor: Tensor, name: str) -> float:
    """Return the share of numbers other than zero whose last bits are zero."""
    numbers = tensor[tensor != 0].float()
    bits = numbers.contiguous().view(torch.int32).numpy()
    trailing = (bits & ((1 << _LOST[name]) - 1)) == 0
    small = np.abs(numbers.numpy()) < 2.0**-14  # of fp16 these have fewer bits, which end elsewhere
    return float(np.mean(trailing | small)) if name == "fp16" else float(np.mean(trailing))
