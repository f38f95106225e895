"""Sketches: a few numbers that stand for a large tensor in a golden file.

A sketch holds sampled elements and random projections. A difference in a single element moves every projection. A
difference that cancels in one projection, such as of two elements that change places, does not in the others: no two
elements have the same weights in all of them. All numbers have the scale of the tensor's elements, so that errors of
sketches compare like errors of tensors.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..traces.pieces import PIECE, Numbers, doubles, pieces

SAMPLES, PROJECTIONS = 16, 8


def sketch(numbers: Numbers) -> Tensor:
    """Return a float64 vector that stands for a tensor, which is read once and in pieces.

    A tensor of up to 24 elements is kept whole. A larger one becomes 16 sampled elements, then 8 sums of all finite
    elements with random weights over the square root of their number, then 8 such sums of a code of the elements that
    are not finite (1 NaN, 2 +Inf, 3 -Inf). A weight is a multiple of 1/128 whose absolute value lies in [0.5, 1.5).
    Positions and weights depend on the number of elements only.
    """
    count = math.prod(numbers.shape)
    if count <= SAMPLES + PROJECTIONS:
        return torch.cat([torch.zeros(0, dtype=torch.float64), *(piece.double() for piece in pieces(numbers))])
    positions = _positions(count)
    samples = torch.empty(SAMPLES, dtype=torch.float64)
    sums = torch.zeros(2, PROJECTIONS, dtype=torch.float64)
    for number, piece in enumerate(pieces(numbers)):
        block = torch.from_numpy(doubles(piece))
        here = positions // PIECE == number
        samples[here] = block[positions[here] % PIECE]
        sums += _projections(number, block)
    return torch.cat([samples, *(sums * count**-0.5)])


def weights_of_sums(count: int) -> Tensor | None:
    """Return the weights of the elements in the sums of a sketch, [PROJECTIONS, count]; None of one that is kept whole."""
    if count <= SAMPLES + PROJECTIONS:
        return None
    blocks = [_weights(number) for number in range(-(-count // PIECE))]
    return torch.cat(blocks, 1)[:, :count] * count**-0.5


def positions_of_samples(count: int) -> Tensor:
    """Return which elements a sketch samples, [SAMPLES]; of one that is kept whole, all of them."""
    return torch.arange(count) if count <= SAMPLES + PROJECTIONS else _positions(count)


def _projections(number: int, block: Tensor) -> Tensor:
    """Return what one block adds to the sums of finite elements and of codes, [2, PROJECTIONS]."""
    weights = _weights(number)[:, : len(block)]
    if block.isfinite().all():
        return torch.stack([weights @ block, torch.zeros(PROJECTIONS, dtype=torch.float64)])
    code = (block.isnan() * 1 + block.isposinf() * 2 + block.isneginf() * 3).double()
    finite = block.where(code == 0, torch.zeros(()))
    return torch.stack([weights @ finite, weights @ code])


def _positions(numel: int) -> Tensor:
    drawn = _mixed(np.arange(SAMPLES, dtype=np.uint64) + np.uint64(numel)) % np.uint64(numel)
    return torch.from_numpy(drawn.astype(np.int64))


@lru_cache(maxsize=32)
def _weights(number: int) -> Tensor:
    """Return the weights of the elements of one block, [PROJECTIONS, PIECE]: a byte of random bits makes each."""
    bits = _mixed(np.arange(PIECE, dtype=np.uint64) + np.uint64(number * PIECE))
    rows = [(bits >> np.uint64(8 * k)) & np.uint64(255) for k in range(PROJECTIONS)]
    codes = np.stack(rows).astype(np.float64)
    return torch.from_numpy(np.where(codes < 128, 0.5 + codes / 128, 0.5 - codes / 128))


def _mixed(x: np.ndarray) -> np.ndarray:
    """Mix whole numbers to 64 random-looking bits each (splitmix64, Steele et al., OOPSLA 2014)."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
