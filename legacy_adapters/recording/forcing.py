"""Teacher forcing: give every module the inputs its twin was given, and go on with the twin's outputs.

Then every record shows only what this module, or this piece of code between modules, computes itself; an error made
earlier does not reach it. Backward the same is done with the gradients of outputs.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

import torch

from .stored import StoredTensors
from .trace_writer import Key


class Forcing:
    """The other side's values, under this side's keys.

    Args:
        path: JSON object with ``folder`` of a trace, ``shards`` of it (digest -> file name) and ``records``, a list of
            (phase, kind, name, call, slot, digest).
    """

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
        self._tensors = StoredTensors(index["folder"], index["shards"])
        self._digests: Dict[Key, str] = {(r[0], r[1], r[2], r[3], r[4]): r[5] for r in index["records"]}
        #: Keys of the values that were replaced.
        self.replaced: List[Key] = []

    def has(self, key: Key) -> bool:
        """Tell whether the other side has a value under ``key``."""
        return key in self._digests

    def value(self, key: Key, own: torch.Tensor) -> Optional[torch.Tensor]:
        """Return the other side's tensor if it differs from ``own`` and can take its place, else None."""
        digest = self._digests.get(key)
        if digest is None:
            return None
        other = self._tensors.read(digest)
        if other.dtype != own.dtype or other.shape != own.shape or _same_bits(other, own.detach().cpu()):
            return None
        self.replaced.append(key)
        other = other.to(own.device)
        return _Replaced.apply(own, other) if own.requires_grad else _laid_out(own, other)


class _Replaced(torch.autograd.Function):
    """Other values on the way forward, the same gradient on the way back."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return _laid_out(own, other)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[torch.Tensor, None]:
        return gradient, None


def _laid_out(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a copy of ``other`` that lies in memory as ``own`` does: kernels are chosen, and round, by that, too."""
    if any(stride == 0 for stride in own.stride()):
        return other.clone()
    return torch.empty_strided(own.size(), own.stride(), dtype=own.dtype, device=own.device).copy_(other)


def _same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.dtype.is_floating_point:
        whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
        one, two = one.contiguous().view(whole), two.contiguous().view(whole)
    return torch.equal(one, two)
