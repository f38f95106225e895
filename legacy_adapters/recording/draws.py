"""Taps of random draws."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence

import torch
from torch.nn import functional

from . import kinds
from .replay import Decision
from .tap import Tap, everywhere


def random_taps() -> Sequence[Tap]:
    """Return the taps of torch's random draws: noise, masks of dropout and DropPath, permutations of samplers.

    The draws of a phase are numbered in one sequence for each name, and what each asked for is recorded: a replayed
    draw is taken as it is, so another order, shape or range would not show otherwise.
    """
    return [
        Tap(torch, "rand", _noise, _read_draw, _write_rand, random=True, basis=_asked_rand, first="size"),
        Tap(torch, "rand_like", _noise, _read_draw, _write_draw, random=True, basis=_asked_rand_like),
        Tap(torch, "randint_like", _noise, _read_draw, _write_draw, random=True, basis=_asked_randint_like),
        Tap(torch, "randperm", _noise, _read_draw, _write_order, random=True, basis=_asked_randperm, first="n"),
        Tap(torch, "bernoulli", _bernoulli, _read_draw, _write_draw, random=True, basis=_asked_bernoulli),
        Tap(torch.Tensor, "bernoulli_", _bernoulli, _read_draw, _write_in_place, random=True, basis=_asked_bernoulli_),
        *everywhere(
            Tap(functional, "dropout", _dropout, _read_kept, _write_kept, random=True, ahead=True, basis=_asked_dropout)
        ),
    ]


def _noise(*args: Any, **kwargs: Any) -> str:
    return "noise"


def _asked_rand(*size: Any, **kwargs: Any) -> Dict[str, Any]:
    shape = size[0] if size and isinstance(size[0], (tuple, list)) else size
    return {"rand.shape": torch.tensor([int(extent) for extent in shape], dtype=torch.int64)}


def _asked_rand_like(like: torch.Tensor, **kwargs: Any) -> Dict[str, Any]:
    return {"rand_like.shape": torch.tensor(like.shape, dtype=torch.int64)}


def _asked_randint_like(like: torch.Tensor, *bounds: int, **kwargs: Any) -> Dict[str, Any]:
    if "high" in kwargs:
        bounds = (*(bounds or (kwargs.get("low", 0),)), kwargs["high"])
    low, high = bounds if len(bounds) == 2 else (kwargs.get("low", 0), bounds[0])
    shape = torch.tensor(like.shape, dtype=torch.int64)
    return {"randint_like.shape": shape, "randint_like.low": low, "randint_like.high": high}


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


def _write_rand(decision: Decision, *size: Any, dtype: Any = None, device: Any = None, **kwargs: Any) -> torch.Tensor:
    shape = _asked_rand(*size)["rand.shape"].tolist()
    return _fitting(decision[kinds.DRAWN], shape).to(device=device, dtype=dtype or torch.get_default_dtype())


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


def _dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Optional[str]:
    return "dropout" if training and 0.0 < p < 1.0 and x.numel() else None


def _asked_dropout(x: torch.Tensor, p: float = 0.5, *args: Any, **kwargs: Any) -> Dict[str, Any]:
    return {"dropout.shape": torch.tensor(x.shape, dtype=torch.int64), "dropout.p": p}


def _read_kept(forced: Optional[Decision], x: torch.Tensor, p: float = 0.5, *args: Any, **kwargs: Any) -> Decision:
    """Return which elements the next dropout keeps: ones in the memory order of ``x`` take the same draw as ``x``."""
    if forced is not None:
        return {kinds.DRAWN: _fitting(forced[kinds.DRAWN], x.shape)}
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.no_grad():
        return {kinds.DRAWN: torch.dropout(torch.ones_like(x), p, True) != 0}


def _write_kept(
    decision: Decision, x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Drop all but what is kept, in the operations of torch's own dropout on the CPU."""
    kept = _fitting(decision[kinds.DRAWN], x.shape)
    noise = torch.empty_like(x).copy_(kept).div_(1.0 - p)
    return x.mul_(noise) if inplace else x * noise
