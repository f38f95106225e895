"""Measure rounding: run a code base in double precision, or on weights and images that differ in the last bit."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import Any, Iterator, Optional, Sequence

import numpy as np
import torch

from ..origin import UnusableInputError

DTYPES = ("float32", "float64")
#: What autocast computes in, by the names of ``--amp``.
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: What makes a tensor of data, and keeps the data's precision.
_OF_DATA = ("tensor", "as_tensor", "asarray", "new_tensor")
_from_numpy = torch.from_numpy  # no function mode sees it
_finfo, _numpy_finfo, _single, _double = torch.finfo, np.finfo, np.float32, np.float64
_narrow_class, _wide_class = torch.FloatTensor, torch.DoubleTensor


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Make new tensors ``dtype`` by default, and for ``float64`` widen what names ``torch.float32``.

    Detectors make positional encodings, grids and masks with ``dtype=torch.float32`` or ``.float()``. In a reference
    run these must be double as well, else its last bits are those of this machine's single-precision ``sin``. A type
    may be named as ``torch.float32``, as ``"torch.FloatTensor"`` or ``torch.FloatTensor``, or as numpy's. Limits of a
    type stay those of single precision, whatever type is asked: ``torch.finfo(x.dtype).eps`` is a number of the model,
    and must not be another one in the reference.

    Raises:
        UnusableInputError: for ``float64`` on a torch older than 1.13.
    """
    if dtype == "float32":
        yield
        return
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (1, 13):
        raise UnusableInputError(
            "Derived tolerance runs each side in float64, too, which needs torch 1.13 or newer; {} has torch {}, so use "
            "--tolerance fixed.".format(sys.executable, torch.__version__)
        )
    from torch.overrides import TorchFunctionMode

    class Widen(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.float:
                func = torch.Tensor.double
            made = func(*[_wide(a) for a in args], **{key: _wide(value) for key, value in (kwargs or {}).items()})
            if getattr(func, "__name__", "") in _OF_DATA and made.dtype is torch.float32:
                made = made.detach().double().requires_grad_(made.requires_grad)
            return made

    torch.set_default_dtype(torch.float64)
    torch.FloatTensor, torch.finfo, torch.from_numpy = torch.DoubleTensor, _limits, _wide_from_numpy
    np.float32, np.finfo = np.float64, _numpy_limits
    try:
        with Widen():
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.FloatTensor, torch.finfo, torch.from_numpy = _narrow_class, _finfo, _from_numpy
        np.float32, np.finfo = _single, _numpy_finfo


@contextmanager
def autocasting(device: str, amp: Optional[str]) -> Iterator[None]:
    """Run what is within under torch's autocast to ``amp``, a key of :data:`AMP`; None runs it as it is.

    Raises:
        RuntimeError: where this torch has no such autocast; old ones only warn and go on in float32.
    """
    if amp is None:
        yield
        return
    kind = torch.device(device).type
    with torch.autocast(kind, dtype=AMP[amp]):
        probe = torch.ones(1, 1, device=device)
        if (probe @ probe).dtype is not AMP[amp]:
            raise RuntimeError("torch {} has no autocast to {} on {}".format(torch.__version__, amp, kind))
        yield


@contextmanager
def as_stored() -> Iterator[None]:
    """Read a file of tensors within, as it was written: readers name float32, and ask how many bytes a type has."""
    widened = torch.FloatTensor, torch.from_numpy, torch.finfo, np.float32
    torch.FloatTensor, torch.from_numpy, torch.finfo, np.float32 = _narrow_class, _from_numpy, _finfo, _single
    try:
        with torch._C.DisableTorchFunction():
            yield
    finally:
        torch.FloatTensor, torch.from_numpy, torch.finfo, np.float32 = widened


def _wide(argument: Any) -> Any:
    if argument is torch.float32:
        return torch.float64
    if argument is _narrow_class:
        return _wide_class
    if isinstance(argument, str) and argument.endswith("FloatTensor") and argument.startswith("torch."):
        return argument[: -len("FloatTensor")] + "DoubleTensor"
    return argument


def _wide_from_numpy(array: Any) -> torch.Tensor:
    made = _from_numpy(array)
    return made.double() if made.dtype is torch.float32 else made


def _limits(dtype: Any = torch.float32) -> Any:
    return _finfo(torch.float32 if dtype is torch.float64 else dtype)


def _numpy_limits(dtype: Any) -> Any:
    named = np.dtype(dtype) if isinstance(dtype, (type, np.dtype, str)) else np.asarray(dtype).dtype
    return _numpy_finfo(_single if named == _double else dtype)


def perturb(tensors: Sequence[torch.Tensor], seed: int, amp: Optional[str] = None) -> None:
    """Multiply every float element by 1 + e, 1 or 1 - e at random, in place; e is the machine epsilon of its dtype.

    With the rounding of the product an element changes by up to 1.5 e. Under autocast, which rounds them first of all,
    elements change by up to half a last place of ``amp``: so they are rounded up or down at random, and no further.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point() and amp is not None:
                shares = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).sub_(0.5).to(tensor)
                tensor.mul_(1 + shares * _finfo(AMP[amp]).eps)
            elif tensor.is_floating_point():
                steps = torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor)
                tensor.mul_(1 + steps * _finfo(tensor.dtype).eps)
