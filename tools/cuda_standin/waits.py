"""What makes the host wait for a GPU, told by the operation that reaches torch's dispatcher.

That is a property of code, not of a machine. It is what ``torch.cuda.set_sync_debug_mode`` warns of: results whose
size or value the host must know, and copies between memory that is not pinned and the GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from . import places
from .refusals import CPU, GPU, MOVES

#: Kinds of wait. Torch waits behind a copy to the GPU, too: for all that was asked of the GPU before.
TO_CPU, TO_GPU = "copy to the CPU", "copy to the GPU"
MASK = "index by a mask"
_aten = torch.ops.aten
#: Operations whose result, or the size of it, the host must know.
_VALUES = {
    _aten._local_scalar_dense: "item",
    _aten.nonzero: "nonzero",
    _aten.masked_select: "masked_select",
    _aten.equal: "equal",
    _aten.unique_dim: "unique",
    _aten._unique: "unique",
    _aten._unique2: "unique",
    _aten.unique_consecutive: "unique",
    _aten.unique_dim_consecutive: "unique",
    _aten.bincount: "bincount",
}
_READS, _WRITES = (_aten.index,), (_aten.index_put, _aten.index_put_, _aten._index_put_impl_)
_FLAGS = (torch.bool, torch.uint8)


class Waits:
    """Count waits by kind and place.

    Attributes:
        counts: (kind, place) -> how often.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def __call__(self, func: OpOverload, args: tuple, kwargs: dict[str, Any]) -> None:
        """Count the waits of one operation."""
        for kind in kinds(func, args, kwargs):
            self.counts[kind, places.current()] += 1

    def by_kind(self) -> dict[str, int]:
        """Return kind -> how often, the most frequent first."""
        totals: Counter[str] = Counter()
        for (kind, _), count in self.counts.items():
            totals[kind] += count
        return dict(totals.most_common())

    def total(self) -> int:
        """Return how often the host waits."""
        return self.counts.total()


def kinds(func: OpOverload, args: tuple, kwargs: dict[str, Any]) -> Iterator[str]:
    """Yield a kind for each wait of one operation; none if nothing of it is on the GPU."""
    operation = func.overloadpacket
    if operation in MOVES:
        yield from _of_move(operation, args, kwargs)
    elif not args or not _on_gpu(args[0]):
        return
    elif operation in _VALUES:
        yield _VALUES[operation]
    elif func is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        yield "repeat_interleave"
    elif operation in _READS or operation in _WRITES:
        yield from _of_index(operation, args)


def _of_move(operation: object, args: tuple, kwargs: dict[str, Any]) -> Iterator[str]:
    if operation is _aten.copy_:
        target, source = _on_gpu(args[0]), _on_gpu(args[1])
        no_wait = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
    else:
        device, source = kwargs.get("device"), _on_gpu(args[0])
        target = source if device is None else device.type != CPU
        no_wait = kwargs.get("non_blocking")
    if source != target and not no_wait:
        yield TO_GPU if target else TO_CPU


def _of_index(operation: object, args: tuple) -> Iterator[str]:
    given = [index for index in args[1] if index is not None]
    masks = [index for index in given if index.dtype in _FLAGS]
    # torch fills instead, without a wait
    filled = operation in _WRITES and args[2].numel() == 1 and len(given) == len(masks) == 1 and not any(args[3:4])
    for index in given:
        if not _on_gpu(index):
            yield TO_GPU
    for _ in () if filled else masks:
        yield MASK


def _on_gpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == GPU
