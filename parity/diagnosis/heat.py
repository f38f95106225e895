"""Where in a tensor two sides differ, and by how much: a small picture of the difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from legacy_adapters.recording.trace_writer import Key

from .measuring import MOST_ELEMENTS
from .scene import Scene

#: Cells of a strip, and of a map's rows and columns.
MOST_CELLS, MOST_ROWS = 64, 48
#: Steps of the scale, from the smallest difference that is shown to the largest; 0 is none.
STEPS = 9
#: How far below the largest difference the scale begins.
DECADES = 6.0


@dataclass(frozen=True)
class Heat:
    """The largest difference of each part of a tensor, in steps of a logarithmic scale.

    Attributes:
        record: key of the new side's record.
        shape: of the tensor.
        largest: difference, the top of the scale; its steps reach ``DECADES`` decades below that.
        strips: for each axis the largest difference at its indices, or ranges of them, as digits from 0 to ``STEPS``.
        axes: the two axes of the map; empty for a tensor of fewer than two that are longer than 1.
        rows: of the map, one string of digits for each.
    """

    record: Key
    shape: tuple[int, ...]
    largest: float
    strips: tuple[str, ...]
    axes: tuple[int, ...] = ()
    rows: tuple[str, ...] = ()


def heat_of(scene: Scene) -> Heat | None:
    """Draw where a pair of records differs; None of other shapes, of one number, and of what is too large."""
    pair = scene.comparison.pair
    shape = pair.new.shape
    if pair.legacy.shape != shape or not 2 <= math.prod(shape) <= MOST_ELEMENTS:
        return None
    legacy, new = scene.values
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(legacy - new)
    strange = np.isnan(legacy) != np.isnan(new)
    gap[np.isnan(gap)] = 0.0
    finite = gap[np.isfinite(gap)]
    largest = float(finite.max()) if finite.size else 0.0
    gap[strange | np.isinf(gap)] = np.inf
    if not (largest or np.isinf(gap).any()):
        return None
    strips = tuple(_digits(_binned(_over(gap, (axis,)), (MOST_CELLS,)), largest) for axis in range(gap.ndim))
    axes = _axes(shape)
    rows: tuple[str, ...] = ()
    if axes:
        grid = _binned(_over(gap, axes), (MOST_ROWS, MOST_CELLS))
        rows = tuple(_digits(row, largest) for row in grid)
    return Heat(scene.record.key, shape, largest, strips, axes, rows)


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of the map: the last two that are longer than 1."""
    long = [axis for axis, length in enumerate(shape) if length > 1]
    return tuple(long[-2:]) if len(long) > 1 else ()


def _over(gap: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the largest over all other axes."""
    return gap.max(axis=tuple(axis for axis in range(gap.ndim) if axis not in axes))


def _binned(values: np.ndarray, most: tuple[int, ...]) -> np.ndarray:
    """Put neighbours together, so that no axis is longer than asked for; of each the largest."""
    for axis, cells in enumerate(most):
        length = values.shape[axis]
        if length > cells:
            starts = np.unique(np.arange(cells) * length // cells)
            values = np.maximum.reduceat(values, starts, axis=axis)
    return values


def _digits(values: np.ndarray, largest: float) -> str:
    """Write differences as digits; what is not finite on one side only is at the top."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(values / largest) if largest else np.where(values > 0, 0.0, -np.inf)
    steps = np.ceil((decades / DECADES + 1) * STEPS)
    steps = np.where(values > 0, np.clip(np.where(np.isfinite(steps), steps, STEPS), 1, STEPS), 0)
    return "".join(str(int(step)) for step in steps)
