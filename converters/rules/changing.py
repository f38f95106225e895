"""Rules that change tensors, as data: what becomes of keys and shapes; `converters.rules.values` says how of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from converters.rules.renaming import OfOne, Shape


class UnfitShapeError(Exception):
    """A tensor's shape does not fit a rule.

    Attributes:
        number: Which of the rule's sources it is, from 0.
        expected: What the rule expects, in words.
    """

    def __init__(self, number: int, expected: str) -> None:
        super().__init__(expected)
        self.number, self.expected = number, expected


class _OfTensors:
    """A rule that changes tensors.

    A subclass has `shapes`, which returns the targets' shapes of the sources' and raises UnfitShapeError, and
    `_numbers`, which is its numbers in words.
    """

    changes_tensors: ClassVar[bool] = True
    fault: str | None = None  # what is wrong with the rule's numbers; None if they are sound
    is_computable: bool = True  # False where values of the targets are not known, only shapes

    @property
    def text(self) -> str:
        return f"{self.action} {', '.join(self.sources)} -> {', '.join(self.targets)} {self._numbers}"

    def describe(self, number: int) -> str:
        """Say in words what of the sources goes to, or comes from, the key with that number."""
        return self._numbers


class _AlongAxis(_OfTensors):
    """A rule that takes a whole tensor apart along an axis, or puts one together."""

    @property
    def fault(self) -> str | None:
        parts = self._parts
        if len(parts) < 2:
            return f"has {len(parts)} part, expected two or more"
        if not _is_axis(self.axis):
            return f"has axis {self.axis!r}, expected a whole number from 0 on"
        if self.sizes is not None and len(self.sizes) != len(parts):
            return f"has {len(self.sizes)} sizes for {len(parts)} parts"
        if self.sizes is not None and not all(_is_size(size) for size in self.sizes):
            return f"has sizes {list(self.sizes)}, expected whole numbers from 1 on"
        return None

    @property
    def _numbers(self) -> str:
        sizes = "equal parts" if self.sizes is None else f"sizes {', '.join(map(str, self.sizes))}"
        return f"along axis {self.axis}, {sizes}"

    def describe(self, number: int) -> str:
        return f"part {number + 1} of {len(self._parts)} along axis {self.axis}"


@dataclass(frozen=True)
class Split(_AlongAxis):
    """Cut every tensor that matches `source` along `axis` and give the parts to `targets`, in their order.

    Attributes:
        source: Pattern of the key.
        targets: Patterns, two or more, each with the wildcards of the source.
        axis: From 0.
        sizes: Of the parts along the axis; None for equal ones.
    """

    source: str
    targets: tuple[str, ...]
    axis: int = 0
    sizes: tuple[int, ...] | None = None
    action: ClassVar[str] = "split"

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)

    @property
    def _parts(self) -> tuple[str, ...]:
        return self.targets

    def shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        (shape,) = shapes
        length, count = _length(shape, self.axis), len(self.targets)
        if self.sizes is not None and length != sum(self.sizes):
            raise UnfitShapeError(0, f"{sum(self.sizes)} along axis {self.axis}")
        if self.sizes is None and length % count:
            raise UnfitShapeError(0, f"a multiple of {count} along axis {self.axis}")
        return tuple(_with(shape, self.axis, size) for size in self.sizes or (length // count,) * count)

    def inverse(self) -> Concat:
        return Concat(self.targets, self.source, self.axis, self.sizes)


@dataclass(frozen=True)
class Concat(_AlongAxis):
    """Join the tensors that match `sources`, in their order, along `axis` and give the whole to `target`.

    Attributes:
        sources: Patterns, two or more, all with the same wildcards.
        target: Pattern of the key, with these wildcards.
        axis: From 0.
        sizes: Of the parts along the axis; None if all have the same.
    """

    sources: tuple[str, ...]
    target: str
    axis: int = 0
    sizes: tuple[int, ...] | None = None
    action: ClassVar[str] = "concat"

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    @property
    def _parts(self) -> tuple[str, ...]:
        return self.sources

    def shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        first = shapes[0]
        length = _length(first, self.axis)
        for number, (shape, size) in enumerate(zip(shapes, self.sizes or (length,) * len(shapes))):
            wanted = _with(first, self.axis, size)
            if shape != wanted:
                raise UnfitShapeError(number, f"{list(wanted)}, which fits its other parts")
        return (_with(first, self.axis, sum(self.sizes or (length,) * len(shapes))),)

    def inverse(self) -> Split:
        return Split(self.target, self.sources, self.axis, self.sizes)


@dataclass(frozen=True)
class Permute(OfOne, _OfTensors):
    """Put the axes of a tensor, or what stands along one of them, into another order.

    Attributes:
        source: Pattern of the key.
        target: Pattern with the same wildcards.
        axes: For each axis of the target the source's, as `torch.permute` takes them; None with `index`.
        index: For each place along `axis` of the target its place in the source; None with `axes`.
        axis: Of `index`, from 0.
    """

    source: str
    target: str
    axes: tuple[int, ...] | None = None
    index: tuple[int, ...] | None = None
    axis: int | None = None
    action: ClassVar[str] = "permute"

    @property
    def fault(self) -> str | None:
        if (self.axes is None) == (self.index is None):
            return "has both axes and an index, or neither; expected one of them"
        if (self.axis is None) != (self.index is None) or not (self.axis is None or _is_axis(self.axis)):
            return f"has axis {self.axis!r}, expected a whole number from 0 on beside an index, and none beside axes"
        name, order = ("axes", self.axes) if self.index is None else ("an index", self.index)
        if not all(map(_is_axis, order)) or sorted(order) != list(range(len(order))):
            return f"has {name} {_some(order)}, expected every number from 0 to {len(order) - 1} once"
        return None

    @property
    def _numbers(self) -> str:
        if self.index is None:
            return f"axes {', '.join(map(str, self.axes))}"
        return f"along axis {self.axis}, index {_some(self.index)}"

    def shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        (shape,) = shapes
        if self.axes is not None:
            if len(shape) != len(self.axes):
                raise UnfitShapeError(0, f"{len(self.axes)} dimensions")
            return (tuple(shape[axis] for axis in self.axes),)
        if _length(shape, self.axis) != len(self.index):
            raise UnfitShapeError(0, f"{len(self.index)} along axis {self.axis}")
        return (shape,)

    def inverse(self) -> Permute:
        order = self.axes if self.index is None else self.index
        turned = tuple(sorted(range(len(order)), key=order.__getitem__))
        axes, index = (turned, None) if self.index is None else (None, turned)
        return Permute(self.target, self.source, axes, index, self.axis)


@dataclass(frozen=True)
class Reshape(OfOne, _OfTensors):
    """Give a tensor's elements, in row-major order, another shape.

    Attributes:
        source: Pattern of the key.
        target: Pattern with the same wildcards.
        shape: Of the target; one size may be -1, which is what is left.
        source_shape: Of the source, with at most one -1 likewise; the way back needs it.
    """

    source: str
    target: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    action: ClassVar[str] = "reshape"

    @property
    def fault(self) -> str | None:
        for name, shape in (("shape", self.shape), ("source_shape", self.source_shape)):
            sound = all(_is_size(size) or (type(size) is int and size == -1) for size in shape)
            if not sound or shape.count(-1) > 1:
                return f"has {name} {list(shape)}, expected whole numbers from 1 on and -1 at most once"
        free, fixed = (self.shape, self.source_shape) if -1 in self.shape else (self.source_shape, self.shape)
        known = _product(fixed)
        if -1 not in fixed and (known % _product(free) if -1 in free else known != _product(free)):
            return f"has shapes {list(self.source_shape)} and {list(self.shape)} of other numbers of elements"
        return None

    @property
    def _numbers(self) -> str:
        return f"from {list(self.source_shape)} to {list(self.shape)}"

    def shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        (shape,) = shapes
        wanted = self.source_shape
        if len(shape) != len(wanted) or any(size not in (-1, have) for have, size in zip(shape, wanted)):
            raise UnfitShapeError(0, f"{list(wanted)}")
        total, known = math.prod(shape), _product(self.shape)
        if total % known or (-1 not in self.shape and total != known):
            count = f"a multiple of {known}" if -1 in self.shape else known
            raise UnfitShapeError(0, f"{list(wanted)} with {count} elements")
        return (tuple(total // known if size == -1 else size for size in self.shape),)

    def inverse(self) -> Reshape:
        return Reshape(self.target, self.source, self.source_shape, self.shape)


class _OfPart(OfOne, _OfTensors):
    """A rule between a tensor and a part of it along an axis."""

    @property
    def fault(self) -> str | None:
        numbers = (self.axis, self.start, self.stop, self.length)
        if not all(map(_is_axis, numbers)) or not self.start < self.stop <= self.length:
            return (
                f"has axis {self.axis!r} and part {self.start!r} to {self.stop!r} of {self.length!r}, expected whole "
                "numbers with start < stop <= length"
            )
        if self.stop - self.start == self.length:
            return f"takes all {self.length} along axis {self.axis}; use `rename`"
        if type(self.rest) not in (int, float, type(None)):
            return f"has rest {self.rest!r}, expected a number or nothing"
        if self.rest is None and not self.reason.strip():
            return "neither says what number the rest is nor gives a reason to leave it out"
        return None

    @property
    def _numbers(self) -> str:
        rest = f"left out ({self.reason})" if self.rest is None else f"{self.rest}"
        return f"{self.start} to {self.stop} of {self.length} along axis {self.axis}, the rest is {rest}"

    def describe(self, number: int) -> str:
        return f"{self.start} to {self.stop} of {self.length} along axis {self.axis}"


@dataclass(frozen=True)
class Slice(_OfPart):
    """Take of every tensor that matches `source` the part from `start` to `stop` along `axis`.

    Attributes:
        source: Pattern of the key.
        target: Pattern with the same wildcards.
        axis: From 0.
        start, stop: The part, without `stop` itself.
        length: Of the source along the axis.
        rest: The number that everything else is in the source, which makes the rule invertible; it is checked. None
            leaves out the rest, whatever it is.
        reason: Why the rest may be left out; needed where it is no number.
    """

    source: str
    target: str
    axis: int
    start: int
    stop: int
    length: int
    rest: float | None = None
    reason: str = ""
    action: ClassVar[str] = "slice"

    def shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        (shape,) = shapes
        if _length(shape, self.axis) != self.length:
            raise UnfitShapeError(0, f"{self.length} along axis {self.axis}")
        return (_with(shape, self.axis, self.stop - self.start),)

    def inverse(self) -> Pad:
        """Return the rule that puts the rest back; it has shapes only where the rest is no number."""
        numbers = (self.axis, self.start, self.stop, self.length, self.rest, self.reason)
        return Pad(self.target, self.source, *numbers)


@dataclass(frozen=True)
class Pad(_OfPart):
    """Make every tensor that matches `source` the part from `start` to `stop` along `axis` of a longer one.

    Attributes:
        source, target, axis: As of `Slice`, of which this is the inverse.
        start, stop: Where the source goes.
        length: Of the target along the axis.
        rest: The number that everything else is; None if it is not known: then the rule is no more than an inverse
            that tells shapes, and a conversion by it is refused.
        reason: As of `Slice`.
    """

    source: str
    target: str
    axis: int
    start: int
    stop: int
    length: int
    rest: float | None = None
    reason: str = ""
    action: ClassVar[str] = "pad"

    @property
    def is_computable(self) -> bool:
        return self.rest is not None

    def shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        (shape,) = shapes
        if _length(shape, self.axis) != self.stop - self.start:
            raise UnfitShapeError(0, f"{self.stop - self.start} along axis {self.axis}")
        return (_with(shape, self.axis, self.length),)

    def inverse(self) -> Slice:
        numbers = (self.axis, self.start, self.stop, self.length, self.rest, self.reason)
        return Slice(self.target, self.source, *numbers)


def _is_axis(number: object) -> bool:
    return type(number) is int and number >= 0


def _is_size(number: object) -> bool:
    return type(number) is int and number >= 1


def _length(shape: Shape, axis: int) -> int:
    if len(shape) <= axis:
        raise UnfitShapeError(0, f"an axis {axis}, the first being 0")
    return shape[axis]


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _product(shape: Sequence[int]) -> int:
    return math.prod(size for size in shape if size != -1)


def _some(numbers: Sequence[int]) -> str:
    """Write numbers; of many the first and how many there are."""
    shown = ", ".join(map(str, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown}, ... ({len(numbers)})"
