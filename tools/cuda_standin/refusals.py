"""What CUDA refuses: operations on tensors of two devices, and generators of another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from . import places

GPU, CPU = "cuda", "cpu"
_aten = torch.ops.aten
#: Operations between devices.
MOVES = (_aten.copy_, _aten._to_copy)
#: Operations that take no tensor without dimensions from the CPU as a number; those that go element by element do.
_TAKE_NO_NUMBERS = (_aten.cat, _aten.stack, _aten.index_select, _aten.gather, _aten.embedding)
#: Operation -> arguments that may lie on the CPU while the first one is on the GPU; they are moved.
_MAY_BE_ON_CPU = {
    _aten.index: ("indices",),
    _aten.index_put: ("indices",),
    _aten.index_put_: ("indices",),
    _aten._index_put_impl_: ("indices",),
}


class RefusedError(RuntimeError):
    """An operation that CUDA would refuse; the message names its place."""


def check(func: OpOverload, args: tuple, kwargs: dict[str, Any]) -> None:
    """Refuse an operation that CUDA would refuse.

    A tensor without dimensions may lie on the CPU where an operation takes a number, and is only read.

    Args:
        func: the operation, as the dispatcher knows it.
        args: its positional arguments; devices are what tensors say.
        kwargs: the others.

    Raises:
        RefusedError: naming place, operation and both tensors.
    """
    if func.overloadpacket in MOVES:
        return
    given = [*_tensors(func, args, kwargs)]
    on_gpu = [tensor for _, tensor, _ in given if tensor.device.type == GPU]
    if on_gpu:
        # an index on the CPU is moved to what it is an index into, not the other way round
        allowed = _MAY_BE_ON_CPU.get(func.overloadpacket, ()) if given[0][1].device.type == GPU else ()
        numbers = func.overloadpacket not in _TAKE_NO_NUMBERS
        for name, tensor, written in given:
            is_number = numbers and not tensor.dim() and not written
            if tensor.device.type == CPU and name not in allowed and not is_number:
                raise RefusedError(f"{places.current()}: {func} mixes {_told(on_gpu[0])} with {_told(tensor)}.")
    generator = kwargs.get("generator")
    if generator is not None:
        device = _result_device(kwargs, on_gpu)
        if generator.device.type != device:
            raise RefusedError(f"{places.current()}: {func} on {device} is given a generator of {generator.device}.")


def _tensors(func: OpOverload, args: tuple, kwargs: dict[str, Any]) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield name of the argument, tensor, and whether it is written to."""
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        written = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                yield argument.name, tensor, written


def _result_device(kwargs: dict[str, Any], on_gpu: list[Tensor]) -> str:
    device = kwargs.get("device")
    if device is None:
        return GPU if on_gpu else CPU
    return CPU if device.type == CPU else GPU


def _told(tensor: Tensor) -> str:
    return f"{tensor.device} {list(tensor.shape)}"
