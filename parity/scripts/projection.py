"""The loss where a user gives none: a fixed sum of all that a model gives, each element with a weight of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from legacy_adapters.recording.values import flatten
from legacy_adapters.scripting.opened import opened

#: A prime, so that weights of neighbours and of neighbouring rows have nothing in common.
_STEP, _MODULUS = 48271, 65537


def projection(output: object) -> Tensor | None:
    """Return the sum over all elements of all outputs, each times a number in (-1, 1).

    Outputs that need no gradient are added as well if they are finite: where one side alone cuts an output off, the loss is the same and its
    gradients tell.

    The numbers follow from an element's place in its tensor alone, so that outputs in another order or under other names
    give the same sum, and they are the same on every machine and in every precision.

    Args:
        output: tensors in lists, tuples, dicts and objects.

    Returns:
        A scalar; None if nothing needs a gradient.
    """
    floats = [tensor for _, tensor in flatten(opened(output)) if isinstance(tensor, Tensor) and tensor.numel()]
    parts = [tensor for tensor in floats if tensor.is_floating_point() or tensor.is_complex()]
    parts = [tensor for tensor in parts if tensor.requires_grad or bool(tensor.isfinite().all())]
    if not any(tensor.requires_grad for tensor in parts):
        return None
    sums = [_sum(tensor) for tensor in parts]
    # equal outputs in another order are added in one order, so that the last bit is the same
    total = torch.zeros((), dtype=torch.float64, device=parts[0].device)
    for one in sorted(sums, key=lambda one: float(one.detach())):
        total = total + one.to(total.device)
    return total


def _sum(tensor: Tensor) -> Tensor:
    places = torch.arange(1, tensor.numel() + 1, dtype=torch.int64, device=tensor.device)
    # whole numbers up to 127 over 128, which every floating type holds exactly
    weights = ((places * _STEP) % _MODULUS % 255).sub_(127).to(torch.float64).div_(128.0)
    return (tensor.reshape(-1) * weights.to(tensor.dtype)).to(torch.float64).sum()
