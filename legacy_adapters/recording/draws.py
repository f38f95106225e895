"""Taps of random draws."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch.nn import functional

from . import kinds
from .replay import Decision
from .tap import Tap, everywhere

#: Which size a draw asks for, and which numbers.
_Asked = Tuple[Sequence[int], Dict[str, Any]]
#: Functions that make the same numbers of what the generator gives, by the name under which they are compared.
_SAME = {
    "rand_like": "rand", "uniform_": "rand", "randn_like": "randn", "normal_": "randn",
    "randint_like": "randint", "random_": "randint",
}  # fmt: skip


def request(slot: str) -> str:
    """Return by what a number or shape that a draw asks for is compared, whichever function is called."""
    function, dot, what = slot.partition(".")
    return _SAME.get(function, function) + dot + what


def random_taps() -> Sequence[Tap]:
    """Return the taps of torch's random draws: noise, masks of dropout and DropPath, permutations of samplers.

    The draws of a phase are numbered in one sequence for each name, and what each asked for is recorded: a replayed
    draw is taken as it is, so another order, shape or range would not show otherwise.
    """
    functions = (
        *(_sized(name, asked) for name, asked in (("rand", _rand), ("randn", _rand), ("randint", _randint))),
        *(_like(name, asked) for name, asked in (("rand_like", _rand_like), ("randn_like", _rand_like))),
        _like("randint_like", _randint_like),
        Tap(torch, "randperm", _noise, _read_draw, _write_order, random=True, basis=_asked_randperm, first="n"),
        Tap(torch, "bernoulli", _bernoulli, _read_draw, _write_draw, random=True, basis=_asked_bernoulli),
        *(
            Tap(owner, "dropout", _dropout, _read_kept, _write_kept, random=True, ahead=True, basis=_asked_dropout)
            for owner in (functional, torch)
        ),
    )
    return [
        *(tap for function in functions for tap in everywhere(function)),
        *(_in_place(*given) for given in (("uniform_", _uniform_), ("normal_", _normal_), ("random_", _randint_like))),
        Tap(torch.Tensor, "bernoulli_", _bernoulli, _read_draw, _write_in_place, random=True, basis=_asked_bernoulli_),
    ]


def _sized(function: str, asked: Callable[..., _Asked]) -> Tap:
    """Watch a function that is given a size."""

    def write(decision: Decision, *args: Any, dtype: Any = None, device: Any = None, **kwargs: Any) -> torch.Tensor:
        default = torch.int64 if asked is _randint else torch.get_default_dtype()
        return _fitting(decision[kinds.DRAWN], asked(*args, **kwargs)[0]).to(device=device, dtype=dtype or default)

    first = "low" if asked is _randint else "size"
    return Tap(torch, function, _noise, _read_draw, write, random=True, basis=_basis(function, asked), first=first)


def _like(function: str, asked: Callable[..., _Asked]) -> Tap:
    """Watch a function that is given a tensor and makes another one."""
    return Tap(torch, function, _noise, _read_draw, _write_draw, random=True, basis=_basis(function, asked))


def _in_place(function: str, asked: Callable[..., _Asked]) -> Tap:
    """Watch a method that fills a tensor."""
    basis = _basis(function, asked)
    return Tap(torch.Tensor, function, _noise, _read_draw, _write_in_place, random=True, basis=basis, first="self")


def _noise(*args: Any, **kwargs: Any) -> str:
    return "noise"


def _basis(function: str, asked: Callable[..., _Asked]) -> Callable[..., Dict[str, Any]]:
    def basis(*args: Any, **kwargs: Any) -> Dict[str, Any]:
        size, numbers = asked(*args, **kwargs)
        shape = torch.tensor([int(extent) for extent in size], dtype=torch.int64)
        return {"{}.{}".format(function, what): value for what, value in dict(shape=shape, **numbers).items()}

    return basis


def _rand(*args: Any, size: Any = None, **kwargs: Any) -> _Asked:
    if size is None:
        size = args[0] if args and isinstance(args[0], (tuple, list)) else args
    return size, {}


def _randint(*args: Any, size: Any = None, **kwargs: Any) -> _Asked:
    bounds = args if size is not None else args[:-1]
    return args[-1] if size is None else size, _whole_bounds(*bounds, **kwargs)


def _rand_like(like: torch.Tensor, **kwargs: Any) -> _Asked:
    return like.shape, {}


def _randint_like(like: torch.Tensor, *bounds: int, **kwargs: Any) -> _Asked:
    return like.shape, _whole_bounds(*bounds, **kwargs)


def _whole_bounds(*bounds: int, **kwargs: Any) -> Dict[str, Any]:
    """Return the bounds of whole numbers, of which ``high`` is not drawn; nothing if all may be drawn."""
    numbers = list(bounds) + [kwargs[name] for name in ("low", "from", "high", "to") if name in kwargs]
    return dict(zip(("low", "high"), ([0] + numbers)[-2:])) if numbers else {}


def _uniform_(drawn: torch.Tensor, *bounds: float, **kwargs: Any) -> _Asked:
    low, high = _two(bounds, kwargs, ("from", "to"))
    return drawn.shape, {} if (low, high) == (0, 1) else {"low": low, "high": high}


def _normal_(drawn: torch.Tensor, *moments: float, **kwargs: Any) -> _Asked:
    mean, std = _two(moments, kwargs, ("mean", "std"))
    return drawn.shape, {} if (mean, std) == (0, 1) else {"mean": mean, "std": std}


def _two(given: Sequence[float], by_name: Mapping[str, float], names: Tuple[str, str]) -> List[float]:
    """Return two numbers that are given by place or by name; the first is 0 by default, the second 1."""
    return [given[place] if place < len(given) else by_name.get(name, place) for place, name in enumerate(names)]


def _read_draw(result: torch.Tensor, *args: Any, **kwargs: Any) -> Decision:
    return {kinds.DRAWN: result}


def _write_draw(decision: Decision, like: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return _fitting(decision[kinds.DRAWN], like.shape).to(device=like.device, dtype=kwargs.get("dtype") or like.dtype)


def _fitting(draw: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return the draw, in its first part or repeated where another shape is asked for; the difference is on record."""
    if tuple(draw.shape) == tuple(shape) or not draw.numel():
        return draw
    numel = int(torch.Size(shape).numel())
    return draw.reshape(-1).repeat(numel // draw.numel() + 1)[:numel].reshape(tuple(shape))


def _asked_randperm(n: int, *args: Any, **kwargs: Any) -> Dict[str, Any]:
    return {"randperm.n": int(n)}


def _write_order(decision: Decision, n: int, *args: Any, device: Any = None, **kwargs: Any) -> Optional[torch.Tensor]:
    """Return the permutation; None if it is one of another number of things, of which no part is one of these."""
    drawn = decision[kinds.DRAWN]
    return drawn.to(device=device) if drawn.shape == (int(n),) else None


def _bernoulli(*args: Any, **kwargs: Any) -> str:
    return "bernoulli"


def _asked_bernoulli(probabilities: torch.Tensor, *args: Any, **kwargs: Any) -> Dict[str, Any]:
    return {"bernoulli.shape": torch.tensor(probabilities.shape, dtype=torch.int64)}


def _asked_bernoulli_(drawn: torch.Tensor, p: Any = 0.5, **kwargs: Any) -> Dict[str, Any]:
    asked = {"bernoulli_.shape": torch.tensor(drawn.shape, dtype=torch.int64)}
    return asked if isinstance(p, torch.Tensor) else dict(asked, **{"bernoulli_.p": p})


def _write_in_place(decision: Decision, drawn: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return drawn.copy_(_fitting(decision[kinds.DRAWN], drawn.shape))


def _dropout(
    x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, train: bool = True
) -> Optional[str]:
    return "dropout" if training and train and 0.0 < p < 1.0 and x.numel() else None


def _asked_dropout(x: torch.Tensor, p: float = 0.5, *args: Any, **kwargs: Any) -> Dict[str, Any]:
    return {"dropout.shape": torch.tensor(x.shape, dtype=torch.int64), "dropout.p": p}


def _read_kept(forced: Optional[Decision], x: torch.Tensor, p: float = 0.5, *args: Any, **kwargs: Any) -> Decision:
    """Return which elements the next dropout keeps: ones in the memory order of ``x`` take the same draw as ``x``."""
    if forced is not None:
        return {kinds.DRAWN: _fitting(forced[kinds.DRAWN], x.shape)}
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.no_grad():
        return {kinds.DRAWN: torch.dropout(torch.ones_like(x), p, True) != 0}


def _write_kept(
    decision: Decision, x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, **kwargs: Any
) -> torch.Tensor:
    """Drop all but what is kept, in the operations of torch's own dropout on the CPU."""
    kept = _fitting(decision[kinds.DRAWN], x.shape)
    noise = torch.empty_like(x).copy_(kept).div_(1.0 - p)
    return x.mul_(noise) if inplace else x * noise
