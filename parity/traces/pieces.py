"""Tensors as flat pieces, so that what is computed of them needs the same memory whatever their size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

#: Elements of a piece: what is made of them fits a core's cache. With fewer, threads wait for each other too often.
PIECE = 1 << 16


class Stored(Protocol):
    """A tensor that is read when it is needed.

    Attributes:
        dtype: of its elements.
        shape: of the tensor.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    def pieces(self) -> Iterator[Tensor]:
        """Yield it flat, in pieces of ``PIECE`` elements and a rest; each is valid until the next is asked for."""


#: A tensor in memory or elsewhere.
Numbers = Tensor | Stored


def pieces(numbers: Numbers) -> Iterator[Tensor]:
    """Yield the elements flat, in pieces of ``PIECE`` and a rest; nothing if there are none."""
    if not isinstance(numbers, Tensor):
        yield from numbers.pieces()
    elif numbers.numel():
        yield from numbers.detach().cpu().reshape(-1).split(PIECE)


def together(*several: Numbers) -> Iterator[tuple[Tensor, ...]]:
    """Yield pieces of several tensors of one shape side by side.

    Raises:
        ValueError: if the shapes differ.
    """
    shapes = {tuple(numbers.shape) for numbers in several}
    if len(shapes) > 1:
        raise ValueError(f"Tensors of shapes {sorted(shapes)} cannot be compared element by element.")
    return zip(*map(pieces, several), strict=True)  # strict also runs each to its end, where checks are


def array(piece: Tensor) -> np.ndarray:
    """Return a piece for numpy, which computes on one thread; in float32 if it is bfloat16, which numpy lacks."""
    return (piece.float() if piece.dtype == torch.bfloat16 else piece).numpy()


def doubles(piece: Tensor) -> np.ndarray:
    """Return a piece in float64."""
    return array(piece).astype(np.float64, copy=False)
