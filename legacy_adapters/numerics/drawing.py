"""Random numbers by recipe: every draw takes its numbers from a generator seeded by its kind and shape.

Two code bases that initialise a model alike need not draw in the same order. Under this patch equal recipes give equal
bits in any order, and other bounds, another kind or another shape give others. Bounds scale and shift the numbers, so a
draw between 0 and 1 that is then scaled equals a draw between the scaled bounds; they are rounded to ten digits, for
``1 / sqrt(n)`` has several last bits. Numbers are made of whole random numbers and single additions and
multiplications, which are the same bits on every machine.

Normal numbers are sums of four uniform ones: of the right mean and deviation, which is all that matters here.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import sys
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch

#: Parameters and defaults of in-place draws of a tensor.
_IN_PLACE = {
    "uniform_": (("from", 0.0), ("to", 1.0)),
    "normal_": (("mean", 0.0), ("std", 1.0)),
    "log_normal_": (("mean", 1.0), ("std", 2.0)),
    "bernoulli_": (("p", 0.5),),
    "exponential_": (("lambd", 1.0),),
    "cauchy_": (("median", 0.0), ("sigma", 1.0)),
    "geometric_": (("p", 0.5),),
    "random_": (("from", None), ("to", None)),
}  # type: Dict[str, Tuple[Tuple[str, Optional[float]], ...]]
#: Functions that fill a tensor with a truncated normal distribution, wherever they stand: torch's own has changed its
#: algorithm, and mmcv, mmengine and timm have copies of the old one.
_TRUNCATED = ("_no_grad_trunc_normal_",)
_MADE = ("rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm", "normal", "bernoulli")
#: Drawn by the original function, with a seeded generator.
_OTHERS = ("multinomial", "poisson")
_EMPTY = ("empty", "empty_like")
_ELEMENTS = 64


class Drawing:
    """What is drawn and filled while :func:`by_recipe` is active.

    Args:
        numbered: no two draws give the same numbers.
        wrote: is told the tensor of every draw and of every constant that is filled in.
    """

    def __init__(self, numbered: bool = False, wrote: Callable[[torch.Tensor], None] = lambda tensor: None) -> None:
        self._numbered = numbered
        self._wrote = wrote
        self._count = 0
        self._recipes: Dict[Tuple[int, bytes], str] = {}

    def wrote(self, tensor: torch.Tensor, recipe: str) -> None:
        """Note what was written into ``tensor``."""
        if recipe:
            self._recipes[_mark(tensor)] = recipe
        self._wrote(tensor)

    def recipe_of(self, tensor: torch.Tensor) -> str:
        """Tell how the values of ``tensor`` came about; it may be a copy of what was drawn."""
        known = self._recipes.get(_mark(tensor))
        if known is not None:
            return known
        flat = tensor.detach().reshape(-1)
        if flat.numel() and bool((flat == flat[0]).all()):
            return "constant {:.6g}".format(float(flat[0]))
        if tensor.is_floating_point() and bool(torch.isnan(flat).any()):
            return "not initialised"
        if not flat.numel() or not tensor.is_floating_point():
            return "computed"
        numbers = flat.double()
        return "computed, mean {:.3g}, std {:.3g}".format(float(numbers.mean()), float(numbers.std(unbiased=False)))

    def generator(self, kind: str, shape: Sequence[int]) -> torch.Generator:
        """Return a generator seeded by kind and shape, and the number of the draw if draws are numbered."""
        self._count += 1
        what = (kind, tuple(shape), self._count if self._numbered else 0)
        digest = hashlib.sha256(repr(what).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))

    def numbers(self, kind: str, shape: Sequence[int], bounds: Sequence[Any]) -> torch.Tensor:
        """Return numbers of a kind (name of an in-place draw, without its underscore) as float32."""
        generator = self.generator(kind, shape)
        first, second = (*bounds, 0.0, 0.0)[:2]

        def uniform() -> torch.Tensor:
            return _ORIGINAL["rand"](tuple(shape), generator=generator, dtype=torch.float32)

        if kind in ("normal", "log_normal"):
            total = uniform() + uniform() + uniform() + uniform()
            made = (total - 2.0) * math.sqrt(3.0)
            made = made * second + first
            return made.exp_() if kind == "log_normal" else made
        if kind == "uniform":
            scale = second - first
            return uniform() * (scale if isinstance(scale, torch.Tensor) else float(scale)) + first
        if kind == "bernoulli":
            return (uniform() < first).float()
        if kind == "random":
            return (uniform().double() * (second - first)).floor() + first
        if kind == "exponential":
            return -torch.log1p(-uniform()) / first
        if kind == "cauchy":
            return torch.tan((uniform() - 0.5) * math.pi) * second + first
        return torch.ceil(torch.log1p(-uniform()) / math.log1p(-first))  # geometric

    def fill(self, tensor: torch.Tensor, kind: str, bounds: Sequence[Any]) -> torch.Tensor:
        """Fill ``tensor`` in place and return it."""
        if tensor.device.type == "meta":
            return tensor
        with torch.no_grad():
            tensor.copy_(self.numbers(kind, tensor.shape, bounds))
        self.wrote(tensor, "{}({})".format(kind, ", ".join(map(_said, bounds))))
        return tensor

    def truncated(self, tensor: torch.Tensor, mean: float, std: float, a: float, b: float) -> torch.Tensor:
        """Fill ``tensor`` with a normal distribution cut to ``[a, b]``, by the inverse of its distribution function."""
        # as it is written everywhere, so that a copy that is not known by name gives the same bits
        low, high = (2 * ((1.0 + math.erf((end - mean) / std / math.sqrt(2.0))) / 2.0) - 1 for end in (a, b))
        with torch.no_grad():
            numbers = self.numbers("uniform", tensor.shape, (_rounded(low), _rounded(high)))
            numbers = numbers.erfinv_().mul_(std * math.sqrt(2.0)).add_(mean).clamp_(min=a, max=b)
            tensor.copy_(numbers)
        self.wrote(tensor, "trunc_normal({})".format(", ".join(map(_said, (mean, std, a, b)))))
        return tensor


_ORIGINAL: Dict[str, Callable] = {"rand": torch.rand}


@contextmanager
def by_recipe(drawing: Drawing) -> Iterator[None]:
    """Let ``drawing`` make all random numbers, and make memory that was never written NaN."""
    changed: List[Tuple[Any, str, Any]] = []
    fill = torch.Tensor.fill_

    def replace(owner: Any, name: str, make: Callable[[Callable], Callable]) -> None:
        original = getattr(owner, name, None)
        if original is not None:
            changed.append((owner, name, original))
            setattr(owner, name, make(original))

    for name, parameters in _IN_PLACE.items():
        replace(torch.Tensor, name, functools.partial(_in_place, drawing, name[:-1], parameters))
    for name in ("fill_", "zero_"):
        replace(torch.Tensor, name, functools.partial(_filling, drawing))
    for name in _MADE:
        replace(torch, name, functools.partial(_made, drawing, name))
    for name in _OTHERS:
        replace(torch, name, functools.partial(_seeded, drawing, name))
    for name in _EMPTY:
        replace(torch, name, functools.partial(_emptied, fill))
    for module in list(sys.modules.values()):
        for name in _TRUNCATED:
            if inspect.isfunction(getattr(module, "__dict__", {}).get(name)):
                replace(module, name, functools.partial(_cut, drawing))
    try:
        yield
    finally:
        for owner, name, original in reversed(changed):
            setattr(owner, name, original)


def _in_place(
    drawing: Drawing, kind: str, parameters: Tuple[Tuple[str, Optional[float]], ...], original: Callable
) -> Callable:
    @functools.wraps(original)
    def draw(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if kind == "random" and len(args) + sum(name in kwargs for name, _ in parameters) < 2:
            end = args[0] if args else kwargs.get("to")
            bounds = [0, end if end is not None else 2 ** (24 if tensor.is_floating_point() else 31)]
        else:
            given = dict(zip((name for name, _ in parameters), args), **kwargs)
            bounds = [given.get(name, default) for name, default in parameters]
        return drawing.fill(tensor, kind, [_rounded(bound) for bound in bounds])

    return draw


def _filling(drawing: Drawing, original: Callable) -> Callable:
    @functools.wraps(original)
    def fill(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = original(tensor, *args, **kwargs)
        drawing.wrote(tensor, "")
        return result

    return fill


def _cut(drawing: Drawing, original: Callable) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def draw(*args: Any, **kwargs: Any) -> torch.Tensor:
        given = signature.bind(*args, **kwargs).arguments
        return drawing.truncated(*(given[name] for name in ("tensor", "mean", "std", "a", "b")))

    return draw


def _made(drawing: Drawing, name: str, original: Callable) -> Callable:
    @functools.wraps(original)
    def draw(*args: Any, **kwargs: Any) -> torch.Tensor:
        given = {key: value for key, value in kwargs.items() if key != "generator"}
        result = original(*args, **given)  # of the right shape, dtype and device
        if result.device.type == "meta":
            return result
        if name == "randperm":
            order = drawing.numbers("uniform", result.shape, (0.0, 1.0)).argsort()
            return result.copy_(order)
        if name == "bernoulli":
            return drawing.fill(result, "bernoulli", [args[1] if len(args) > 1 else kwargs.get("p", args[0])])
        if name == "normal":
            return drawing.fill(result, "normal", _normal_bounds(*args, **kwargs))
        if name.startswith("randint"):
            return drawing.fill(result, "random", _whole_bounds(name, *args, **kwargs))
        kind, bounds = ("normal", (0.0, 1.0)) if name.startswith("randn") else ("uniform", (0.0, 1.0))
        return drawing.fill(result, kind, bounds)

    return draw


def _normal_bounds(mean: Any = 0.0, std: Any = 1.0, *size: Any, **more: Any) -> Tuple[Any, Any]:
    return _rounded(mean), _rounded(std)


def _whole_bounds(name: str, *args: Any, **kwargs: Any) -> Tuple[float, float]:
    if name == "randint_like":
        args = args[1:]
    numbers = [arg for arg in args if isinstance(arg, int)]
    low, high = (numbers[0], numbers[1]) if len(numbers) > 1 else (kwargs.get("low", 0), (*numbers, None)[0])
    return float(low), float(kwargs["high"] if high is None else high)


def _seeded(drawing: Drawing, name: str, original: Callable) -> Callable:
    @functools.wraps(original)
    def draw(first: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return original(first, *args, **dict(kwargs, generator=drawing.generator(name, first.shape)))

    return draw


def _emptied(fill: Callable, original: Callable) -> Callable:
    @functools.wraps(original)
    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = original(*args, **kwargs)
        if made.device.type != "meta" and made.layout == torch.strided:
            with torch.no_grad():
                fill(made, float("nan") if made.is_floating_point() else 0)
        return made

    return make


def _rounded(bound: Any) -> Any:
    """Return a number to ten digits, so that ``1 / n ** 0.5`` and ``math.sqrt(1 / n)`` are one; tensors as they are."""
    if isinstance(bound, torch.Tensor) and bound.numel() > 1:
        return bound
    return float("{:.10g}".format(float(bound)))


def _said(bound: Any) -> str:
    return "tensor" if isinstance(bound, torch.Tensor) else "{:.6g}".format(bound)


def _mark(tensor: torch.Tensor) -> Tuple[int, bytes]:
    """Return what tells the content of one draw from that of another: the number of elements and the first of them."""
    first = tensor.detach().reshape(-1)[:_ELEMENTS]
    return tensor.numel(), first.float().cpu().contiguous().numpy().tobytes()
