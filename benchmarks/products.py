"""The floor of a detector's time: its matrix products and convolutions alone, on other numbers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm)
_CONVOLUTIONS = (_aten.convolution, _aten.convolution_backward)
#: Fused attention -> how many products of queries and keys it takes, in the forward and in the backward pass.
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu: 2,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: 5,
    _aten._scaled_dot_product_flash_attention: 2,
    _aten._scaled_dot_product_flash_attention_backward: 5,
    _aten._scaled_dot_product_efficient_attention: 2,
    _aten._scaled_dot_product_efficient_attention_backward: 5,
}


class Products(TorchDispatchMode):
    """Collect the products of what runs within.

    Attributes:
        calls: (operation, arguments with tensors as shapes) -> how often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        packet = func.overloadpacket
        if packet in _PRODUCTS or packet in _CONVOLUTIONS:
            self.calls[(packet.default, tuple(map(_described, args)))] += 1  # what writes into `out` costs the same
        elif packet in _ATTENTION:
            first = 1 if _ATTENTION[packet] == 5 else 0  # the backward pass is given the gradient first
            query, key = args[first], args[first + 1]
            self.calls[(_aten.bmm.default, _of_attention(query, key))] += _ATTENTION[packet]
        return func(*args, **(kwargs or {}))


def _of_attention(query: Tensor, key: Tensor) -> tuple:
    bs, heads, n, dim = query.shape
    plain = (query.dtype, query.device.type, False)
    return (("tensor", (bs * heads, n, dim), *plain), ("tensor", (bs * heads, dim, key.shape[2]), *plain))


def _described(argument: Any) -> tuple:
    if not isinstance(argument, Tensor):
        return ("value", tuple(argument) if isinstance(argument, list) else argument)
    last = argument.dim() == 4 and argument.is_contiguous(memory_format=torch.channels_last)
    return ("tensor", tuple(argument.shape), argument.dtype, argument.device.type, last)


def replay(calls: Counter[tuple], synchronise: Callable[[], None]) -> float:
    """Run the collected products on random numbers; return the seconds they took."""
    seconds = 0.0
    for (func, described), count in calls.items():
        arguments = list(_made(described))
        func(*arguments)
        synchronise()
        start = time.perf_counter()
        for _ in range(count):
            func(*arguments)
        synchronise()
        seconds += time.perf_counter() - start
    return seconds


def _made(described: tuple) -> Iterator[Any]:
    for kind, *rest in described:
        if kind == "value":
            yield list(rest[0]) if isinstance(rest[0], tuple) else rest[0]
            continue
        shape, dtype, device, last = rest
        tensor = torch.randn(shape, device=device).to(dtype)
        yield tensor.contiguous(memory_format=torch.channels_last) if last else tensor
