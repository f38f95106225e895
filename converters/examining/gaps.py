"""How far two tensors of one shape are apart, element by element."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from converters.formats.stored import StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

_PIECE = 1 << 20  # elements that are compared at a time


def numbers(one: StoredTensor, two: StoredTensor) -> tuple[int, float]:
    """Return how many elements differ, and by how much at most."""
    import torch

    count, largest = 0, 0.0
    if one.numel() == 0:
        return count, largest
    pieces = zip(one.to_torch().reshape(-1).split(_PIECE), two.to_torch().reshape(-1).split(_PIECE))
    for x, y in pieces:
        gap = _gaps(x, y)
        if x.dtype == y.dtype:
            bits = x.view(torch.uint8).reshape(len(x), -1) != y.view(torch.uint8).reshape(len(y), -1)
            count += int(bits.any(dim=1).sum())
        else:
            count += int((gap != 0).sum())
        largest = math.nan if gap.isnan().any() or math.isnan(largest) else max(largest, float(gap.max()))
    return count, largest


def _gaps(x: Tensor, y: Tensor) -> Tensor:
    """Return the absolute differences of [n] elements in float64; nan where one side alone is not a number."""
    import torch

    a, b = _wide(x), _wide(y)
    gap = (a - b).abs()
    same = (a == b) | ((a != a) & (b != b))
    if not (x.is_floating_point() or x.is_complex() or y.is_floating_point() or y.is_complex()):
        near = gap < 2.0**62  # whole numbers this close are subtracted exactly
        gap = torch.where(near, (x.to(torch.int64) - y.to(torch.int64)).abs().to(torch.float64), gap)
        same = torch.zeros_like(same)
    return torch.where(same, 0.0, gap)


def _wide(tensor: Tensor) -> Tensor:
    import torch

    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return (tensor if tensor.dtype.itemsize > 2 else tensor.to(torch.float32)).to(torch.float64)
