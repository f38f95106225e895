"""Tensors that hold their numbers on the CPU and call themselves ``cuda:0``.

To torch's C++ code they are tensors of the device ``meta``, for which it has no kernels of its own and which every
build of torch knows; to Python they are on ``cuda:0``. Every operation on them, backward included, arrives in
:class:`StandIn`, which refuses what CUDA would refuse and computes the rest on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from . import places, refusals
from .refusals import CPU, GPU, RefusedError

CUDA = torch.device(GPU, 0)
_CPU, _META = torch.device(CPU), torch.device("meta")


class CudaTensor(Tensor):
    """A tensor on ``cuda:0`` that is not.

    Attributes:
        held: the numbers, a plain tensor on the CPU.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> CudaTensor:
        """Wrap ``held``, which is not copied."""
        described = dict(dtype=held.dtype, layout=held.layout, device=_META, strides=held.stride())
        tensor = Tensor._make_wrapper_subclass(cls, held.size(), storage_offset=held.storage_offset(), **described)
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return compute(func, args, kwargs or {})

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    @property
    def data(self) -> Tensor:
        """Return the values without gradient, as torch does; they cannot be exchanged."""
        return self.detach()

    def get_device(self) -> int:
        """Return the number of the device."""
        return 0

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as CUDA does, unless a copy is asked for."""
        if force:
            return self.detach().cpu().numpy()
        raise RefusedError(f"{places.current()}: numpy() of {CUDA} {list(self.shape)}; a copy on the CPU has one.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        """Return the numbers; the host waits for them."""
        return self.detach().cpu().tolist()

    def cuda(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the tensor itself."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Change type or device; stay as it is where neither changes."""
        device, dtype, more = _target(*args, **kwargs)
        return super().to(*(() if device in (None, CUDA) else (device,)), dtype or self.dtype, **more)

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, device: Any = None,
                   requires_grad: bool = False) -> Tensor:  # fmt: skip
        """Make a tensor of ``data`` here, or on ``device``."""
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or CUDA, requires_grad=requires_grad)

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_as_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_as_index(index), value)

    def __format__(self, spec: str) -> str:
        return format(repr(self) if self.dim() else self.item(), spec)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.held})"

    def __deepcopy__(self, memo: dict) -> Tensor:
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))


def _as_index(index: Any) -> Any:
    """Make lists in an index tensors of the CPU; torch's C++ code would make them of its own device, without values."""
    parts = index if isinstance(index, tuple) else (index,)
    made = tuple(torch.tensor(part) if isinstance(part, (list, np.ndarray)) else part for part in parts)
    return made if isinstance(index, tuple) else made[0]


class StandIn(TorchDispatchMode):
    """Within this context there is a GPU; :func:`install` must have been called.

    Args:
        watch: called with each operation before it is computed, with its arguments.
    """

    def __init__(self, watch: Callable[[OpOverload, tuple, dict[str, Any]], None] | None = None) -> None:
        super().__init__()
        self.watch = watch

    def __enter__(self) -> StandIn:
        self._moves = _moves_by_dispatcher()
        self._moves.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._moves.__exit__(*error)

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return compute(func, args, kwargs or {}, self.watch)


def compute(func: OpOverload, args: tuple, kwargs: dict[str, Any], watch: Callable[..., None] | None = None) -> Any:
    """Compute one operation on the CPU; what it makes is on the GPU if CUDA would leave it there.

    Raises:
        RefusedError: if CUDA would refuse it.
        NotImplementedError: if it changes the form of a tensor in place.
    """
    refusals.check(func, args, kwargs)
    if watch is not None:
        watch(func, args, kwargs)
    given: dict[int, CudaTensor] = {}

    def held(value: Any) -> Any:
        if not isinstance(value, CudaTensor):
            return _CPU if isinstance(value, torch.device) else value
        given[id(value.held)] = value
        return value.held

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        known = given.get(id(value))
        return known if known is not None else CudaTensor(value) if on_gpu else value

    result = func(*tree_map(held, args), **tree_map(held, kwargs))
    device = kwargs.get("device")
    on_gpu = bool(given) if device is None else device.type != CPU
    for tensor in given.values():
        if tensor.shape != tensor.held.shape:
            raise NotImplementedError(f"{places.current()}: {func} changes the shape of a tensor in place.")
    return tree_map(placed, result)


def install() -> None:
    """Let this process believe that it has a GPU; to be called before mmcv, which asks once, is imported.

    It cannot be undone: such a process does nothing else.
    """
    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda._lazy_init = lambda: None


@contextmanager
def _moves_by_dispatcher() -> Iterator[None]:
    """Replace what torch's C++ code moves to a GPU without asking the dispatcher, or after asking the GPU."""
    makers = {name: getattr(torch, name) for name in ("tensor", "as_tensor", "asarray")}
    moves = {name: getattr(Tensor, name) for name in ("to", "cuda")}
    for name, make in makers.items():
        setattr(torch, name, _made_on_cpu(make))
    Tensor.to = _moved_by_name(Tensor.to)
    Tensor.cuda = lambda self, *args, **kwargs: self.to(CUDA)
    try:
        yield
    finally:
        for owner, functions in ((torch, makers), (Tensor, moves)):
            for name, function in functions.items():
                setattr(owner, name, function)


def _target(
    *args: Any, device: Any = None, dtype: torch.dtype | None = None, **more: Any
) -> tuple[torch.device | None, torch.dtype | None, dict[str, Any]]:
    """Read the arguments of ``Tensor.to``: device (every GPU is ``cuda:0``), type, and the rest by name."""
    rest = list(args)
    if rest and isinstance(rest[0], Tensor):
        device, dtype = rest[0].device, rest.pop(0).dtype
    elif rest and not isinstance(rest[0], (torch.dtype, bool)):
        device = rest.pop(0)
    if rest and (rest[0] is None or isinstance(rest[0], torch.dtype)):
        dtype = rest.pop(0)
    more.update(zip(("non_blocking", "copy"), rest))
    device = None if device is None else torch.device(device)
    return CUDA if device is not None and device.type == GPU else device, dtype, more


def _moved_by_name(move: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Give ``Tensor.to`` a device with a number: torch's C++ code would ask the GPU for it."""

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype, more = _target(*args, **kwargs)
        return move(self, *(() if device is None else (device,)), dtype or self.dtype, **more)

    return to


def _made_on_cpu(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make tensors on the CPU and move them: torch's C++ code would move them without asking the dispatcher."""

    def made(data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> Tensor:
        if isinstance(data, CudaTensor) or device is None or torch.device(device).type != GPU:
            more = {} if device is None else dict(device=device)
            return make(data, *args, **more, **(dict(requires_grad=True) if requires_grad else {}), **kwargs)
        return make(data, *args, **kwargs).to(CUDA).requires_grad_(requires_grad)

    return made
