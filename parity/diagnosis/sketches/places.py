"""Where a record differs from one of which there is a sketch: in one element, at one index, where it is not finite.

The sums of a sketch are over all elements with known weights. So a difference of one unknown number, at one element or
the same everywhere at one index of an axis, gives sums that no other place gives: more of them must agree than there
are unknown numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from legacy_adapters.recording.trace_writer import Record

from ..kinds import Diagnosis, DiagnosisKind
from ..measuring import FAR, numbers, said
from ..places import not_finite_words
from ..scene import Scene

#: Larger tensors have too many places to try.
_MOST_ELEMENTS = 1 << 19
#: What is left of the sums, as a share of them, if one place explains them; a rival must leave a hundred times as much.
_MOST_LEFT, _RIVAL = 1e-3, 100.0
_RANK = 90


def not_finite(new: Tensor, is_legacy_finite: bool, record: Record) -> Iterator[Diagnosis]:
    """Yield where the new side alone has NaN or infinities."""
    if not new.is_floating_point() or not is_legacy_finite or bool(new.isfinite().all()):
        return
    text = not_finite_words(np.zeros(tuple(new.shape)), numbers(new))
    yield Diagnosis(DiagnosisKind.NOT_FINITE, text, 0.0, float("inf"), _RANK, record.key)


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield the one place at which a number added, or a factor, explains the whole difference."""
    new, target = scene.tensors[1].double(), scene.target
    if target is None or not 24 < new.numel() <= _MOST_ELEMENTS or not bool(new.isfinite().all()):
        return
    known = target.sums()
    if known is None:
        return
    which, weights = known
    sums = torch.from_numpy((target.sketch(new) - target.reference)[which.numpy()])
    found = list(_places(new, weights, sums))
    left, more, where, change = min(found, key=lambda one: one[0])
    others = [one for one in found if one[2] != where]
    if left > _MOST_LEFT or any(one[0] < _RIVAL * left and one[0] < 10 * _MOST_LEFT for one in others):
        return
    residual = target.off(new - change())
    if residual <= target.floor and residual * FAR <= scene.gap:
        yield scene.diagnosis(DiagnosisKind.PLACE, f"only {where}, {more}", residual, _RANK)


def _places(new: Tensor, weights: Tensor, sums: Tensor):
    """Yield the best place of each sort: what is left, in words what changes there, where, and the change as a tensor."""
    flat = weights.reshape(len(weights), -1)
    index, size, left = _best(flat, sums)
    where = [int(i) for i in np.unravel_index(index, tuple(new.shape))]

    def at_element(index: int = index, size: float = size) -> Tensor:
        change = torch.zeros(new.numel(), dtype=torch.float64)
        change[index] = size
        return change.reshape(new.shape)

    yield left, _more(size), f"at {where}", at_element
    for axis, length in enumerate(new.shape):
        if length < 2 or new.numel() // length < 2:
            continue
        rest = [1 + other for other in range(new.dim()) if other != axis]
        for is_factor in (False, True):
            columns = (weights * new if is_factor else weights).sum(rest)  # [sums, length]
            index, size, left = _best(columns, sums)
            if is_factor and size >= 1:
                continue  # a legacy side of zeros, or of another sign: which of them is not asked
            row = new.select(axis, index) if is_factor else torch.ones_like(new.select(axis, index))

            def at_index(axis: int = axis, index: int = index, size: float = size, row: Tensor = row) -> Tensor:
                change = torch.zeros_like(new)
                change.select(axis, index).copy_(size * row)
                return change

            more = f"by a factor of {said(1 / (1 - size))}" if is_factor else _more(size)
            yield left, more, f"index {index} of axis {axis}", at_index


def _more(size: float) -> str:
    return f"by {said(abs(size))} {'more' if size > 0 else 'less'}"


def _best(columns: Tensor, sums: Tensor) -> tuple[int, float, float]:
    """Return which column, times which number, is nearest to the sums, and what is left as a share of them."""
    squares = columns.square().sum(0).clamp(min=1e-300)
    sizes = (columns * sums[:, None]).sum(0) / squares
    left = (sums.square().sum() - sizes.square() * squares).clamp(min=0)
    index = int(left.argmin())
    rest = sums - sizes[index] * columns[:, index]
    return index, float(sizes[index]), float(rest.norm() / sums.norm().clamp(min=1e-300))
