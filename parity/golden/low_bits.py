"""The low bits of numbers, by which numbers that are nearly right are made exactly right again.

Random numbers of one seed have other last bits on another machine: the kernels of torch that make normal ones differ.
A byte of each number is enough to undo that, where a whole number would take four.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Whole numbers of the size of each type.
_WHOLE = {
    torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16,
}  # fmt: skip
_STEP = 256


def low_bits(tensor: Tensor) -> Tensor | None:
    """Return the last 8 bits of each number, uint8 of the tensor's shape; None of what is no float."""
    if tensor.dtype not in _WHOLE:
        return None
    return (_bits(tensor) % _STEP).to(torch.uint8)


def restored(tensor: Tensor, low: Tensor) -> Tensor:
    """Return the numbers nearest to ``tensor`` that end in these bits.

    They are those that the bits were taken of if these are at most 127 last places away and of the same sign; whether
    they are is for the caller to check, by their digest.

    Args:
        tensor: of floats.
        low: of the same shape, see :func:`low_bits`.
    """
    bits = _bits(tensor)
    away = (low.to(bits.dtype) - bits % _STEP + _STEP // 2) % _STEP - _STEP // 2  # [-128, 128)
    return (bits + away).view(tensor.dtype).reshape(tensor.shape)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(_WHOLE[tensor.dtype]).reshape(tensor.shape)
