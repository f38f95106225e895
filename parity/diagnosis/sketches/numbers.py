"""Explanations where of the legacy side only a sketch is at hand, as in a golden file.

What the new side computed in float64 is changed back as a hypothesis says; the sketch of that is compared with the
legacy side's, which is of float64 as well. A sketch has samples and random sums of all elements, so nothing that leaves
an element wrong gives the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations

import numpy as np
import torch
from torch import Tensor

from ...traces.kinds import Kind
from ..changes import affine_words, rounded
from ..functions import ACTIVATIONS
from ..kinds import Diagnosis, DiagnosisKind
from ..layers import sides_of
from ..measuring import FAR, FLOOR, numbers, off, said
from ..precision import ROUNDINGS, before_sigmoid, grid_words, rounded_before_sigmoid
from ..records import distance_of, said_of
from ..scene import Scene
from ..sums import laid_out, name_of, plainest

_MOST_ELEMENTS = 1 << 22
_MOST_ROLLS = 16
_SIMPLE, _ONE_NUMBER, _SUM, _RECORD = 10, 20, 6, 8


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield the explanations of one tensor by its twin's sketch, by other records and by sums."""
    target, new = scene.target, scene.tensors[1].double()
    if target is None or new.numel() > _MOST_ELEMENTS or not np.isfinite(numbers(new)).all():
        return
    if new.numel() > 1 and len(torch.unique(new)) == 1:
        if len(np.unique(target.reference)) > 2:
            text = f"every number of the new side is {said(float(new.flatten()[0]))}"
            yield scene.diagnosis(DiagnosisKind.CONSTANT, text, 0.0, 1)
        return
    if new.numel() < 8 or len(torch.unique(new)) < 8:
        return
    yield from _forms(scene, new)
    yield from _numbers(scene, new)
    yield from _orders(scene, new)
    yield from _records(scene, new)
    yield from _precision(scene, new)
    if scene.record.kind in (Kind.MODULE_OUT, Kind.MODULE_IN):
        yield from _sums(scene, new)
        yield from _activations(scene, new)


def _is_own_run(scene: Scene) -> bool:
    """Tell whether what is at hand is of the new side's own run, not of the one in float64."""
    return scene.target.floor >= FLOOR


def _explains(scene: Scene, residual: float) -> bool:
    return residual <= scene.target.floor and residual * FAR <= scene.gap


def _forms(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    """Try that the same numbers, but for rounding, come in another type or shape."""
    one, two = scene.comparison.pair.legacy, scene.record
    if not _is_own_run(scene) or scene.target.off(new) > scene.target.floor:
        return
    if one.dtype != two.dtype:
        text = f"the legacy side's numbers, but for rounding, as {two.dtype} in place of {one.dtype}"
        yield scene.diagnosis(DiagnosisKind.TYPE, text, scene.target.off(new), 1)
    elif one.shape != two.shape:
        text = f"the legacy side's numbers, but for rounding, in the shape {list(two.shape)} in place of {list(one.shape)}"
        yield scene.diagnosis(DiagnosisKind.SHAPE, text, scene.target.off(new), 1)


def _numbers(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    sketch, reference = scene.target.sketch(new), scene.target.reference
    if sketch.shape != reference.shape or not np.isfinite(reference).all():
        return
    kind = DiagnosisKind.GRADIENT if scene.is_gradient else DiagnosisKind.FACTOR
    square = float(np.vdot(sketch, sketch))
    factor = float(np.vdot(sketch, reference)) / square if square else 0.0
    if factor and abs(factor - 1) > 1e-7:
        residual = off(factor * sketch, reference)
        if _explains(scene, residual):
            if abs(factor + 1) < 1e-7:
                text = "the legacy side's numbers with the other sign"
                if torch.equal(new.flatten().sort().values, (-new).flatten().sort().values):
                    text += ", or in another order: of these numbers both are the same"
                yield scene.diagnosis(DiagnosisKind.SIGN, text, residual, _SIMPLE)
            else:
                text = f"the legacy side's numbers times {said(rounded(1 / factor))}"
                yield scene.diagnosis(kind, text, residual, _ONE_NUMBER)
    ones = scene.target.sketch(torch.ones_like(new))
    offset = float(np.vdot(sketch - reference, ones)) / float(np.vdot(ones, ones))
    residual = off(sketch - offset * ones, reference)
    if offset and _explains(scene, residual):
        text = f"the legacy side's numbers {'plus' if offset > 0 else 'minus'} {said(abs(rounded(offset)))}"
        yield scene.diagnosis(DiagnosisKind.OFFSET, text, residual, _ONE_NUMBER)


def _orders(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    """Try the orders that have a name; a sketch does not tell which element is where, so no others can be found."""
    for axis, length in enumerate(new.shape):
        for text, back in _of_axis(new, axis, length) if length > 1 else ():
            yield from _order(scene, back, DiagnosisKind.PERMUTATION, f"permuted along axis {axis}: {text}")
    long = [axis for axis, length in enumerate(new.shape) if length > 1]
    for count in (2, 3):
        for axes in combinations(long, count):
            where = f"in reverse order along axes {' and '.join(map(str, axes))}"
            yield from _order(scene, new.flip(axes), DiagnosisKind.PERMUTATION, where)
    yield from _of_maps(scene, new)
    for order in permutations(range(new.dim())) if 2 <= new.dim() <= 4 else ():
        back = new.permute(order)
        if order != tuple(range(new.dim())) and tuple(back.shape) == scene.comparison.pair.legacy.shape:
            yield from _order(scene, back, DiagnosisKind.TRANSPOSE, "transposed")


def _of_maps(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    """Try the orders of maps whose places were laid out one after the other: maps in reverse order, columns first."""
    by_module: dict[str, dict[str, tuple[int, ...]]] = {}
    for part in scene.parts():
        if part.kind == Kind.MODULE_OUT and part.new.dim() == 4:
            by_module.setdefault(part.name, {})[part.slot] = tuple(part.new.shape[2:])
    for name, maps in by_module.items():
        sizes = [size for _, size in sorted(maps.items())]
        counts = [height * width for height, width in sizes]
        for axis in (axis for axis in range(min(2, new.dim())) if new.shape[axis] == sum(counts) and len(sizes) > 1):
            reverse = new.split(counts[::-1], axis)[::-1]
            text = f"permuted along axis {axis}: the {len(sizes)} maps of `{name}` in reverse order"
            yield from _order(scene, torch.cat(reverse, axis), DiagnosisKind.PERMUTATION, text)
            # [..., width * height, ...] -> [..., height * width, ...]
            turned = [
                block.unflatten(axis, (width, height)).transpose(axis, axis + 1).flatten(axis, axis + 1)
                for block, (height, width) in zip(new.split(counts, axis), sizes)
            ]
            text = f"permuted along axis {axis}: in each of the {len(sizes)} maps of `{name}` columns come first, not rows"
            yield from _order(scene, torch.cat(turned, axis), DiagnosisKind.PERMUTATION, text)


def _order(scene: Scene, back: Tensor, kind: DiagnosisKind, text: str) -> Iterator[Diagnosis]:
    residual = scene.target.off(back)
    if _explains(scene, residual):
        words = affine_words(numbers(back), numbers(scene.tensors[1]), scene.gap)
        text += f", or {words}: of these numbers both are the same" if words else ""
        yield scene.diagnosis(kind, f"the legacy side's numbers {text}", residual, _SIMPLE)


def _of_axis(new: Tensor, axis: int, length: int) -> Iterator[tuple[str, Tensor]]:
    yield "in reverse order", new.flip(axis)
    for by in range(1, min(_MOST_ROLLS, length - 1) + 1):
        if 2 * by == length:
            if length > 2:
                yield "the two halves exchanged", new.roll(by, axis)
            continue
        yield f"the {length} are rolled by {by}", new.roll(-by, axis)
        yield f"the {length} are rolled by -{by}", new.roll(by, axis)
    if length > 2 * _MOST_ROLLS and length % 2 == 0:
        yield "the two halves exchanged", new.roll(length // 2, axis)
    for count in range(2, 33):
        if length % count or length // count < 2:
            continue
        size = length // count
        blocks = new.unflatten(axis, (count, size))
        if count > 2:
            yield f"in {count} blocks of {size}, in reverse order", blocks.flip(axis).flatten(axis, axis + 1)
        yield (
            f"within each of {count} blocks of {size}, in reverse order", blocks.flip(axis + 1).flatten(axis, axis + 1)
        )
        yield f"{count} blocks of {size} taken in turn", new.unflatten(axis, (size, count)).transpose(
            axis, axis + 1
        ).flatten(axis, axis + 1)
        for by in range(1, count):
            if size > 1 and by * size > _MOST_ROLLS and 2 * by != count:
                yield f"in {count} blocks of {size}, the {count} are rolled by {by}", blocks.roll(-by, axis).flatten(
                    axis, axis + 1
                )


def _records(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    own, sketch = scene.comparison.pair.legacy, scene.target.sketch(new)
    found = [
        (record, residual) for record, values in scene.target.others()
        if record.shape == tuple(new.shape) and values.shape == sketch.shape
        and _explains(scene, residual := off(sketch, values))
    ]  # fmt: skip
    if found:
        record, residual = min(found, key=lambda item: distance_of(own, item[0]))
        text = f"the legacy side's {said_of(record, own)}"
        yield scene.diagnosis(DiagnosisKind.OTHER_RECORD, text, residual, _RECORD)


def _precision(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    """Try that all numbers of the new side are rounded, and that the legacy side's samples are these but for that."""
    if new.numel() <= 24:  # kept whole, not sampled
        return
    sketches = scene.target.sketch(new), scene.target.reference
    ours, theirs = (torch.from_numpy(values[:16]).double() for values in sketches)
    names = []
    for name, rounding in ROUNDINGS.items():
        is_rounded = torch.equal(rounding(new.float()).double(), new)
        twins = rounding(theirs.float()).double()
        if is_rounded and torch.equal(twins, ours) and int((twins != theirs).sum()) >= 8:
            names.append(name)
    one, two = scene.comparison.pair.legacy.dtype, scene.record.dtype
    if names and _is_own_run(scene) and one != two:
        text = f"the legacy side's numbers as {two} in place of {one}, as far as samples show"
        yield scene.diagnosis(DiagnosisKind.TYPE, text, 0.0, 1)
        return
    if names:
        text = f"the new side's numbers are the legacy side's rounded to {' or '.join(names)}"
        text += f"{grid_words(theirs, ours)}, as far as samples show"
        yield scene.diagnosis(DiagnosisKind.PRECISION, text, 0.0, 5)
        return
    unit = 2.0**-24 if _is_own_run(scene) else 2.0**-53
    names = rounded_before_sigmoid(theirs, ours, unit, new)
    if names:
        text = f"{before_sigmoid('new')} rounded to {' or '.join(names)}, as far as samples show"
        yield scene.diagnosis(DiagnosisKind.PRECISION, text, 0.0, 6)


def _sums(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    for one in scene.parts():
        part = laid_out(one, tuple(new.shape))
        if part is None or not part.new.any():
            continue
        for back, text in (
            (new + part.new, "the new side's plus {} is the legacy side's: a term is missing, or is subtracted"),
            (new - part.new, "the legacy side's plus {} is the new side's: a term too many, or one that the legacy side "
             "subtracts"),
        ):
            residual = scene.target.off(back)
            if _explains(scene, residual):
                yield scene.diagnosis(DiagnosisKind.RESIDUAL, text.format(name_of(scene, part)), residual, _SUM)
                return


def _activations(scene: Scene, new: Tensor) -> Iterator[Diagnosis]:
    """Try that both sides apply an activation, not the same, to what was computed before."""
    given = []
    if scene.record.kind == Kind.MODULE_OUT and not scene.weights and (layers := sides_of(scene)) is not None:
        given = [("", layers[1].x)]
    given += [(f" on {name_of(scene, part)}", part.new.double()) for part in list(scene.parts())[:6]]
    values = numbers(new)
    for whose, x in given:
        if x.shape != new.shape:
            continue
        with np.errstate(all="ignore"):
            results = {name: function(numbers(x)) for name, function in ACTIVATIONS.items()}
        found = plainest([name for name, result in results.items() if off(result, values) <= scene.target.floor])
        gaps = {name: scene.target.off(torch.from_numpy(result)) for name, result in results.items()}
        expected = plainest([name for name, residual in gaps.items() if _explains(scene, residual)])
        if len(found) == len(expected) == 1 and found != expected:
            text = f"{found[0]} in place of {expected[0]}{whose}"
            yield scene.diagnosis(DiagnosisKind.ACTIVATION, text, off(results[found[0]], values), 4)
            return
