"""Differences of order: permuted, transposed, shifted, repeated or otherwise moved elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np

from .changes import affine_words
from .kinds import Diagnosis, DiagnosisKind
from .measuring import FLOOR, explains, is_telling, off
from .scene import Scene

_MOST_DIMENSIONS = 5
_MOST_LISTED, _MOST_ROLLS = 8, 32
#: How much is assumed: an order that a few words say, one of each slice's own, any.
_SIMPLE, _FREE, _OWN, _ANY = 10, 20, 24, 60


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield every order in which the legacy side's numbers are the new side's."""
    legacy, new = scene.values
    if not is_telling(legacy, 2) or not is_telling(new, 2):
        return
    also = "" if scene.record.dtype == "BOOL" else affine_words(legacy, new, scene.gap)
    if also:  # an even grid in another order
        also = f", or {also}: of these numbers both are the same"
    for one in _found(scene, legacy, new):
        yield replace(one, text=f"{one.text}{also}")


def _found(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    if legacy.shape == new.shape and not explains(off(-legacy, new), scene.gap):  # else it may be the sign as well
        yield from _flips(scene, legacy, new)
        for axis, length in enumerate(legacy.shape):
            if length > 1:
                yield from _along(scene, legacy, new, axis)
    yield from _transposes(scene, legacy, new)


def _flips(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    """Try to turn round several dimensions at once; of one that is a permutation like others."""
    long = [axis for axis, length in enumerate(legacy.shape) if length > 1]
    if len(long) > _MOST_DIMENSIONS:
        return
    for count in range(2, len(long) + 1):
        for axes in combinations(long, count):
            residual = off(np.flip(legacy, axes), new)
            if explains(residual, scene.gap):
                text = f"the legacy side's numbers in reverse order along {_axes(axes, legacy.ndim)}"
                yield scene.diagnosis(DiagnosisKind.PERMUTATION, text, residual, _SIMPLE + count)


def _transposes(scene: Scene, legacy: np.ndarray, new: np.ndarray) -> Iterator[Diagnosis]:
    if not 2 <= legacy.ndim <= _MOST_DIMENSIONS or sorted(legacy.shape) != sorted(new.shape):
        return
    for order in permutations(range(legacy.ndim)):
        if order == tuple(range(legacy.ndim)) or tuple(legacy.shape[axis] for axis in order) != new.shape:
            continue
        if legacy.shape == new.shape and all(legacy.shape[a] == 1 or a == b for a, b in enumerate(order)):
            continue
        residual = off(legacy.transpose(order), new)
        if explains(residual, scene.gap):
            text = "the legacy side's numbers transposed"
            if legacy.ndim > 2:
                text += f": dimensions in the order {', '.join(map(str, order))}"
            yield scene.diagnosis(DiagnosisKind.TRANSPOSE, text, residual, _SIMPLE)


def _along(scene: Scene, legacy: np.ndarray, new: np.ndarray, axis: int) -> Iterator[Diagnosis]:
    one, two = (np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) for values in (legacy, new))
    permuted = list(_permuted(scene, one, two, axis))
    yield from permuted or _shifted(scene, one, two, axis)
    if axis == 0:
        yield from _repeated(scene, one, two)
    if axis > 0:
        yield from _permuted_within(scene, legacy, new, axis)


def _permuted(scene: Scene, one: np.ndarray, two: np.ndarray, axis: int) -> Iterator[Diagnosis]:
    order = matching(one, two)
    moved = int((order != np.arange(len(order))).sum())
    if not moved:
        return
    residual = off(one[order], two)
    if not explains(residual, scene.gap) or not _are_evident(one[order != np.arange(len(order))]):
        return
    name, rank = named(order)
    others = _of_equal_rows(one, two, order, scene.gap)
    if len(others) == 1:
        name, rank = others[0]
    elif others:
        name, rank = f"{moved} of {len(order)} at another place, some of which are equal", _FREE
    text = f"the legacy side's numbers permuted along {_axis(axis, scene)}: {name}"
    yield scene.diagnosis(DiagnosisKind.PERMUTATION, text, residual, rank)


def _of_equal_rows(one: np.ndarray, two: np.ndarray, order: np.ndarray, gap: float) -> list[tuple[str, int]]:
    """Return the names of all plain orders that hold where rows are equal, so that several may; else none."""
    first = one @ _weights(one)
    if float(np.diff(np.sort(first)).min()) > FLOOR * float(np.abs(first).max()):
        return []
    places = np.arange(len(one))
    rolls = dict.fromkeys(by % len(one) for by in range(-_MOST_ROLLS, _MOST_ROLLS + 1) if by % len(one))
    plain = [places[::-1], *(np.roll(places, by) for by in rolls)]
    names = [named(order)]
    names += [named(other) for other in plain if explains(off(one[other], two), gap)]
    found = list(dict.fromkeys(names))
    plainer = [name for name in found if name[1] <= _SIMPLE]
    return plainer if len(plainer) == 1 and found[0][1] > _SIMPLE + 1 else found


def _kinds(rows: np.ndarray) -> int:
    """Return how many different rows there are, by a random sum of their elements."""
    return len(np.unique(rows @ _weights(rows)))


def _weights(rows: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, rows.shape[1])


def _are_evident(rows: np.ndarray) -> bool:
    """Tell whether rows are at another place not by chance: several long ones or many short ones."""
    several = _kinds(rows)
    if rows.shape[1] >= 4 and len(np.unique(rows[:64])) >= 3:
        return several > 1
    return several >= 4 and 2 * several >= len(rows)


def matching(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return for each row of ``two`` the place of the row of ``one`` that it may be; which it is must be checked.

    Rows are told apart by a random sum of their elements; of equal rows each is its own if it can be.
    """
    first, second = one @ _weights(one), two @ _weights(two)
    order = np.empty(len(one), dtype=np.int64)
    order[np.argsort(second, kind="stable")] = np.argsort(first, kind="stable")
    own = (one == two).all(1)
    if own.any() and not own.all():  # of rows that stay, none is said to have moved
        rest = np.flatnonzero(~own)
        order = np.arange(len(one))
        order[rest[np.argsort(second[rest], kind="stable")]] = rest[np.argsort(first[rest], kind="stable")]
    return order


def named(order: np.ndarray) -> tuple[str, int]:
    """Say a permutation in words, and how much it assumes."""
    length, places = len(order), np.arange(len(order))
    if np.array_equal(order, places[::-1]):
        return "in reverse order", _SIMPLE
    if np.array_equal(order, np.roll(places, int(order[0]) and -int(order[0]))):
        by = int(-order[0]) % length
        by = by - length if by > length // 2 else by
        return (f"the {length} are rolled by {by}" if length != 2 * abs(by) else "the two halves exchanged"), _SIMPLE
    moved = np.flatnonzero(order != places)
    if len(moved) == 2:
        return f"{moved[0]} and {moved[1]} exchanged", _SIMPLE + 1
    for count in range(2, length):  # whole blocks
        if length % count or count == length:
            continue
        size = length // count
        blocks = order.reshape(count, size)
        if (blocks - blocks[:, :1] == np.arange(size)).all() and (blocks[:, 0] % size == 0).all():
            name, rank = named(blocks[:, 0] // size)
            if "block" in name or rank > _SIMPLE + 1:  # nobody thinks of blocks of blocks
                name = _listed(blocks[:, 0] // size)
            return f"in {count} blocks of {size}, {name}", rank + 1
    for count in range(length - 1, 1, -1):  # the same within each block
        if length % count:
            continue
        size = length // count
        blocks = order.reshape(count, size) - np.arange(count)[:, None] * size
        if (blocks == blocks[:1]).all():
            name, rank = named(blocks[0])
            if size == 2:
                name = "the two exchanged"
            elif "block" in name or rank > _SIMPLE + 1:
                name = _listed(blocks[0])
            return f"within each of {count} blocks of {size}, {name}", rank + 1
    for count in range(2, length):
        if length % count == 0 and np.array_equal(order, places.reshape(count, -1).T.reshape(-1)):
            return f"{count} blocks of {length // count} taken in turn", _SIMPLE + 2
    if length <= _MOST_LISTED:
        return _listed(order), _FREE
    return f"{len(moved)} of {length} at another place", _FREE


def _listed(order: np.ndarray) -> str:
    """Say a permutation by its numbers, or how many are moved."""
    if len(order) <= _MOST_LISTED:
        return f"in the order {', '.join(map(str, order))}"
    return f"{int((order != np.arange(len(order))).sum())} of {len(order)} at another place"


def _permuted_within(scene: Scene, legacy: np.ndarray, new: np.ndarray, axis: int) -> Iterator[Diagnosis]:
    """Try a permutation of its own for each index of the first dimension, as of the elements of each image."""
    if legacy.ndim < 3 or not 1 < legacy.shape[0] <= 64:
        return
    orders, undone = [], np.empty_like(legacy)
    for index in range(legacy.shape[0]):
        one, two = (np.moveaxis(values[index], axis - 1, 0).reshape(values.shape[axis], -1) for values in (legacy, new))
        if one.shape[1] < 2:
            return
        orders.append(matching(one, two))
        np.moveaxis(undone[index], axis - 1, 0)[...] = np.moveaxis(legacy[index], axis - 1, 0)[orders[-1]]
    if all((order == orders[0]).all() for order in orders):
        return  # one for all
    residual = off(undone, new)
    moved = sum(int((order != np.arange(len(order))).sum()) for order in orders)
    if moved >= 4 and is_telling(legacy, 16) and explains(residual, scene.gap):
        text = f"the legacy side's numbers permuted along {_axis(axis, scene)}, at each index of axis 0 in another way"
        yield scene.diagnosis(DiagnosisKind.PERMUTATION, text, residual, _OWN)


def _shifted(scene: Scene, one: np.ndarray, two: np.ndarray, axis: int) -> Iterator[Diagnosis]:
    """Try a shift by one or two places in which what is pushed out is lost."""
    for by in (1, -1, 2, -2):
        if len(one) <= abs(by) + 1:
            continue
        source, target = (one[:-by], two[by:]) if by > 0 else (one[-by:], two[:by])
        residual, gap = off(source, target), off(one[by:] if by > 0 else one[:by], target)
        kept = one[by:] if by > 0 else one[:by]
        if explains(residual, gap) and is_telling(target, 3) and _kinds(source) > 1:
            words = affine_words(kept, target, gap)  # of an even grid that may be an offset as well, up to a bound
            way = "later" if by > 0 else "earlier"
            text = f"the legacy side's numbers {abs(by)} {way} along {_axis(axis, scene)}"
            end = f"{'first' if by > 0 else 'last'} {'index' if abs(by) == 1 else f'{abs(by)} indices'}"
            text += f", or {words} but at the {end}" if words else ""
            yield scene.diagnosis(DiagnosisKind.SHIFT, text, residual, _SIMPLE + 3 + abs(by))


def _repeated(scene: Scene, one: np.ndarray, two: np.ndarray) -> Iterator[Diagnosis]:
    for index in {0, len(one) - 1}:
        residual = off(np.broadcast_to(one[index], two.shape), two)
        if explains(residual, scene.gap) and is_telling(one[index], 2) and _kinds(one) > 1:
            text = f"what the legacy side has at index {index} of axis 0, at every index"
            yield scene.diagnosis(DiagnosisKind.REPEATED, text, residual, _SIMPLE)


def moved(scene: Scene) -> Iterator[Diagnosis]:
    """Yield that the same numbers stand elsewhere, in whatever order; for where nothing simpler holds."""
    legacy, new = scene.values
    if legacy.size != new.size or not is_telling(legacy, 16) or legacy.shape != new.shape:
        return
    if np.array_equal(np.sort(legacy, axis=None), np.sort(new, axis=None)):
        is_sorted = np.array_equal(new.reshape(-1), np.sort(legacy, axis=None))
        rows = [axis for axis in range(legacy.ndim) if np.array_equal(np.sort(legacy, axis), new)]
        text = "the same numbers, sorted" if is_sorted else "the same numbers at other places, in no order that was tried"
        text = f"the same numbers, sorted along axis {rows[0]}" if rows and not is_sorted else text
        yield scene.diagnosis(DiagnosisKind.MOVED, text, 0.0, _ANY)


def _axis(axis: int, scene: Scene) -> str:
    return f"axis {axis}"


def _axes(axes: tuple[int, ...], dimensions: int) -> str:
    return "all axes" if len(axes) == dimensions else f"axes {' and '.join(map(str, axes))}"
