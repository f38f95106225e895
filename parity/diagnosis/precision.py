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
    if not len(numbers):
        return 0.0
    bits = numbers.contiguous().view(torch.int32).numpy()
    trailing = (bits & ((1 << _LOST[name]) - 1)) == 0
    small = np.abs(numbers.numpy()) < 2.0**-14  # of fp16 these have fewer bits, which end elsewhere
    return float(np.mean(trailing | small)) if name == "fp16" else float(np.mean(trailing))
