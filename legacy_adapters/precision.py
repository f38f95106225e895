"""Measure rounding: run a code base in double precision, or on weights and images that differ in the last bit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, ContextManager, Iterator, Sequence

import torch

DTYPES = ("float32", "float64")


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Make new tensors ``dtype`` by default, and for ``float64`` widen what names ``torch.float32``.

    Detectors make positional encodings, grids and masks with ``dtype=torch.float32`` or ``.float()``. In a reference
    run these must be double as well, else its last bits are those of this machine's single-precision ``sin``.

    Raises:
        RuntimeError: for ``float64`` on a torch older than 1.13.
    """
    if dtype == "float32":
        yield
        return
    try:
        from torch.overrides import TorchFunctionMode
    except ImportError:
        message = "float64 runs need torch 1.13 or newer on this side; it has {}".format(torch.__version__)
        raise RuntimeError(message) from None

    class Widen(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.float:
                func = torch.Tensor.double
            return func(*[_wide(a) for a in args], **{key: _wide(value) for key, value in (kwargs or {}).items()})

    torch.set_default_dtype(torch.float64)
    try:
        with Widen():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def as_stored() -> ContextManager:
    """Return what to read a file of tensors within: torch's reader names torch.float32, which is not to be widened."""
    return torch._C.DisableTorchFunction()


def _wide(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


def perturb(tensors: Sequence[torch.Tensor], seed: int) -> None:
    """Multiply every float element by 1 + e, 1 or 1 - e at random, in place; e is the machine epsilon of its dtype.

    With the rounding of the product an element changes by up to 1.5 e.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point():
                steps = torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor)
                tensor.mul_(1 + steps * torch.finfo(tensor.dtype).eps)
