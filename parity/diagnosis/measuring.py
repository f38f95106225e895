"""How far two arrays are apart, and when what is left of a difference counts as rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

#: A share of a tensor's size up to which a difference of float32 numbers may be rounding.
FLOOR = 32 * 2.0**-23
#: The undone difference must be smaller than the difference itself by this factor; of layers that are computed again,
#: whose rounding is measured, by the second.
FAR, FAR_OF_LAYERS = 30.0, 8.0
_SAMPLED, _LARGE = 4096, 1 << 17
#: What is off by more than this share is far, by however much.
_PLAINLY = 0.1
#: Elements of tensors that are looked at.
MOST_ELEMENTS = 1 << 24


def numbers(tensor: Tensor) -> np.ndarray:
    """Return a tensor as float64; booleans and whole numbers, too."""
    return tensor.detach().cpu().double().numpy()


def off(one: np.ndarray, two: np.ndarray) -> float:
    """Return the difference of two arrays as a share of the second's size: by root mean square or largest, the larger.

    Infinite for other shapes, or where one is not finite. Of large arrays that are far apart in some of their elements
    only these are measured.
    """
    if one.shape != two.shape:
        return math.inf
    if two.size > _LARGE:
        few = _share(*(values[_thinned(two.shape)] for values in (one, two)))
        if few > _PLAINLY:
            return few
    return _share(one, two)


def _thinned(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return what takes some thousand elements of an array of this shape, from all over it."""
    left, steps = _SAMPLED, []
    for number, length in enumerate(shape):
        wanted = max(1, round(left ** (1 / (len(shape) - number))))
        steps.append(slice(None, None, max(1, length // wanted)))
        left = max(1, left // min(wanted, length))
    return tuple(steps)


def _share(one: np.ndarray, two: np.ndarray) -> float:
    if not two.size:
        return 0.0
    with np.errstate(all="ignore"):
        gap = np.abs(one - two)
        largest = float(gap.max())
        if not math.isfinite(largest):
            return 0.0 if np.array_equal(one, two, equal_nan=True) else math.inf
        size = float(np.abs(two).max())
        if size == 0.0:
            return 0.0 if largest == 0.0 else math.inf
        squares = float(np.sqrt(np.mean(np.square(gap / size)))), float(np.sqrt(np.mean(np.square(two / size))))
        return max(largest / size, squares[0] / squares[1])


def explains(residual: float, gap: float, floor: float = FLOOR) -> bool:
    """Tell whether what remains of a difference ``gap`` is rounding and far below it."""
    return residual == 0.0 < gap or (residual <= floor and residual * FAR <= gap)


def sample(values: np.ndarray) -> np.ndarray:
    """Return some thousand elements, evenly taken, flat: enough to refuse what is done element by element."""
    flat = values.reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLED)]


def is_telling(values: np.ndarray, least: int = 4) -> bool:
    """Tell whether an array has enough different numbers to tell one explanation from another."""
    if values.size < least or not np.isfinite(values).all():
        return False
    return len(np.unique(values.reshape(-1)[: 1 << 16])) >= least


def said(value: float) -> str:
    """Write a number that was found from data: in six digits at most, a round one as such."""
    return f"{value:.6g}"


def off_after(function: Callable[[np.ndarray], np.ndarray], given: np.ndarray, result: np.ndarray) -> float:
    """Return how far a function of an array is from another one; of some rows only where that is far already."""
    rows = max(1, min(len(given), _SAMPLED * max(1, len(given)) // max(1, given.size))) if given.ndim else 0
    if rows and rows < len(given):
        few = off(function(given[:rows]), result[:rows])
        if few > 0.01 or np.isnan(few):
            return few
    return off(function(given), result)
