"""What rules make of tensors: bits are moved, never computed; a constant that a rule names is the only thing added."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, TypeAlias

from converters.errors import RestDiffersError
from converters.formats.stored import CHUNK, ITEM_SIZES, Storage, StoredTensor
from converters.rules.changing import Concat, Pad, Permute, Reshape, Slice, Split
from converters.rules.kinds import Rule
from converters.rules.renaming import Shape

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

AnyTensor: TypeAlias = "StoredTensor | Tensor"
Tensors: TypeAlias = Sequence[StoredTensor]
_FORMATS = {
    **{"float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "int16": "h", "int8": "b"},
    **{"uint64": "Q", "uint32": "I", "uint16": "H", "uint8": "B", "bool": "?"},
}


def applied(rule: Rule, tensors: Sequence[AnyTensor], rest: float | None = None) -> tuple[AnyTensor, ...]:
    """Return the targets' tensors of the sources', in the rule's orders.

    Args:
        rule: Any but one that drops.
        tensors: Of shapes that fit it (see `Rule.shapes`), all of one dtype; those of torch give such of torch. Stored
            ones are not read now: the results are views of them, or read them when they are read.
        rest: What `Pad` puts around its source, for tensors other than the weights, such as an average of gradients, of
            which no rest is known that `Slice` could check; None for the rule's own number.

    Raises:
        RestDiffersError: If the rest that `Slice` leaves out is not what the rule says.
        CheckpointError, OSError: If a tensor that has to be read for that cannot be.
    """
    if not rule.changes_tensors:
        return tuple(tensors)
    if not all(isinstance(tensor, StoredTensor) for tensor in tensors):
        stored = applied(rule, tuple(map(StoredTensor.from_torch, tensors)), rest)
        return tuple(tensor.to_torch().to(tensors[0].device) for tensor in stored)
    shapes = rule.shapes([tensor.shape for tensor in tensors])
    return tuple(_made(rule, tensors, shapes, rest))


@singledispatch
def _made(rule: Rule, tensors: Tensors, shapes: Sequence[Shape], rest: float | None) -> list[StoredTensor]:
    raise TypeError(f"Rule `{rule.text}` changes no tensors.")


@_made.register
def _split(rule: Split, tensors: Tensors, shapes: Sequence[Shape], rest: float | None) -> list[StoredTensor]:
    (tensor,) = tensors
    ends = [sum(shape[rule.axis] for shape in shapes[:number]) for number in range(len(shapes))]
    return [_part(tensor, rule.axis, start, shape[rule.axis]) for start, shape in zip(ends, shapes)]


@_made.register
def _concat(rule: Concat, tensors: Tensors, shapes: Sequence[Shape], rest: float | None) -> list[StoredTensor]:
    def joined() -> bytes:
        import numpy as np

        return np.concatenate([_array(tensor) for tensor in tensors], axis=rule.axis).tobytes()

    return [_computed(tensors, shapes[0], joined)]


@_made.register
def _permute(rule: Permute, tensors: Tensors, shapes: Sequence[Shape], rest: float | None) -> list[StoredTensor]:
    (tensor,) = tensors
    if rule.axes is not None:
        stride = tuple(tensor.stride[axis] for axis in rule.axes)
        return [StoredTensor(tensor.dtype, shapes[0], tensor.storage, tensor.offset, stride)]

    def taken() -> bytes:
        return _array(tensor).take(rule.index, axis=rule.axis).tobytes()

    return [_computed(tensors, shapes[0], taken)]


@_made.register
def _reshape(rule: Reshape, tensors: Tensors, shapes: Sequence[Shape], rest: float | None) -> list[StoredTensor]:
    (tensor,) = tensors
    if tensor.is_contiguous():
        return [StoredTensor(tensor.dtype, shapes[0], tensor.storage, tensor.offset)]
    return [_computed(tensors, shapes[0], tensor.data)]


@_made.register
def _slice(rule: Slice, tensors: Tensors, shapes: Sequence[Shape], rest: float | None) -> list[StoredTensor]:
    (tensor,) = tensors
    if rule.rest is not None and rest is None:
        constant = _constant(rule.rest, tensor.dtype)
        for start, stop in ((0, rule.start), (rule.stop, rule.length)):
            outside = _part(tensor, rule.axis, start, stop - start)
            if outside.data() != constant * outside.numel():
                raise RestDiffersError(
                    f"has other numbers than {rule.rest} outside of {rule.describe(0)}; give the rule no rest and a "
                    "reason to leave it out"
                )
    return [_part(tensor, rule.axis, rule.start, rule.stop - rule.start)]


@_made.register
def _pad(rule: Pad, tensors: Tensors, shapes: Sequence[Shape], rest: float | None) -> list[StoredTensor]:
    (tensor,) = tensors
    constant = _constant(rule.rest if rest is None else rest, tensor.dtype)

    def padded() -> bytes:
        import numpy as np

        whole = np.frombuffer(constant, f"V{len(constant)}").repeat(math.prod(shapes[0])).reshape(shapes[0])
        whole[(slice(None),) * rule.axis + (slice(rule.start, rule.stop),)] = _array(tensor)
        return whole.tobytes()

    return [_computed(tensors, shapes[0], padded)]


def _part(tensor: StoredTensor, axis: int, start: int, length: int) -> StoredTensor:
    """Return a view of the part of a tensor that is `length` long from `start` on."""
    shape = (*tensor.shape[:axis], length, *tensor.shape[axis + 1 :])
    offset = tensor.offset + (start * tensor.stride[axis] if math.prod(shape) else 0)
    return StoredTensor(tensor.dtype, shape, tensor.storage, offset, tensor.stride)


def _computed(sources: Sequence[StoredTensor], shape: tuple[int, ...], make: Callable[[], bytes]) -> StoredTensor:
    return StoredTensor(sources[0].dtype, shape, MadeStorage(sources, math.prod(shape), make))


def _array(tensor: StoredTensor) -> np.ndarray:
    """Return the elements as bytes without a meaning, so that every dtype is moved alike."""
    import numpy as np

    return np.frombuffer(tensor.data(), f"V{tensor.itemsize}").reshape(tensor.shape)


def _constant(number: float, dtype: str) -> bytes:
    """Return the bytes of a number, rounded to a dtype."""
    if dtype == "bfloat16":
        bits = int.from_bytes(struct.pack("<f", number), "little")
        return (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) & 0xFFFF).to_bytes(2, "little")
    try:
        return struct.pack(f"<{_FORMATS[dtype]}", number if "float" in dtype or number != int(number) else int(number))
    except (KeyError, struct.error, OverflowError) as error:
        raise RestDiffersError(f"has dtype {dtype}, which does not hold the rest {number}") from error


class MadeStorage(Storage):
    """Elements that are put together of other tensors whenever they are read."""

    def __init__(self, sources: Sequence[StoredTensor], count: int, make: Callable[[], bytes]) -> None:
        """Stand for `count` elements, row-major, that `make` returns."""
        self.name = " + ".join(dict.fromkeys(tensor.storage.name for tensor in sources))
        self.nbytes = count * ITEM_SIZES[sources[0].dtype]
        self._sources, self._make = sources, make

    def check(self) -> None:
        """Verify the check sums of what the elements are read from."""
        for tensor in self._sources:
            tensor.storage.check()

    def read(self, begin: int, length: int) -> bytes:
        """Return `length` bytes from `begin` on."""
        return self._make()[begin : begin + length]

    def chunks(self, begin: int, length: int, size: int = CHUNK) -> Iterator[memoryview]:
        """Yield the same, `size` bytes each but for the last."""
        data = memoryview(self._make())[begin : begin + length]
        yield from (data[at : at + size] for at in range(0, length, size))
