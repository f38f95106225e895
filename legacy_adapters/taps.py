"""Taps: functions whose discrete results (or random draws) are recorded and can be forced.

Top-k, NMS, Hungarian matching and random draws are not continuous: an input that differs in its last bit may give
quite another result. A tap records such a result; given the *decisions* of another run it can force it (replay), so
that the continuous code around it is compared under identical decisions.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence

import torch

from .recorder import Recorder

Decision = Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Tap:
    """A function to watch.

    Attributes:
        owner: module or class that holds the function under ``attribute``.
        attribute: name of the function there.
        name: gives the tap's name from the call's arguments, e.g. ``distinct``; None means "do not record this call".
        read: takes the result and the call's arguments and gives the decision in it, as named tensors.
        write: takes a decision and the call's arguments and gives the result the function would have returned, or
            None if the decision does not fit the arguments, as that of more queries; None if the tap is only watched.
        random: a draw, not a decision: a replayed one is taken as it is; what the function draws only moves the generator.
        basis: gives from the call's arguments what the decision rests on, as named tensors and numbers: ``scores`` of
            a ranking; ``boxes`` [n, 4] xyxy, ``scores`` [n], ``iou_threshold``, ``max_num`` of an NMS; ``cost`` of a
            matching. It is recorded too, so that a decision that differs can be told from a tie.
    """

    owner: Any
    attribute: str
    name: Callable[..., Optional[str]]
    read: Callable[..., Decision]
    write: Optional[Callable[..., Any]] = None
    random: bool = False
    basis: Optional[Callable[..., Dict[str, Any]]] = None


class ReplayError(Exception):
    """The decisions bundle does not fit this run."""


@contextmanager
def installed(
    taps: Sequence[Tap], recorder: Recorder, replay: Optional[Mapping[str, torch.Tensor]], decide: bool = True
) -> Iterator[None]:
    """Put wrappers in place of the tapped functions and take them away again.

    Args:
        taps: the functions to watch.
        recorder: records every decision taken.
        replay: decisions by key (see :func:`decision_key`), or None to let every function decide itself.
        decide: under replay, call the function all the same and record what it decides itself.
    """
    originals = [(tap, getattr(tap.owner, tap.attribute)) for tap in taps]
    for tap, original in originals:
        setattr(tap.owner, tap.attribute, _tapped(tap, original, recorder, replay, decide))
    try:
        yield
    finally:
        for tap, original in originals:
            setattr(tap.owner, tap.attribute, original)


def decision_key(phase: str, name: str, call: int, slot: str) -> str:
    """Name one tensor of a decisions bundle."""
    return "{}/{}/{}/{}".format(phase, name, call, slot)


def _tapped(
    tap: Tap, original: Callable, recorder: Recorder, replay: Optional[Mapping[str, torch.Tensor]], decide: bool
) -> Callable:
    running = False

    def tapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal running
        name = tap.name(*args, **kwargs) if recorder.phase and not running else None
        if name is None:
            return original(*args, **kwargs)
        running = True  # in a float64 run torch hands the call on to the wrapper once more
        try:
            return watched(name, *args, **kwargs)
        finally:
            running = False

    def watched(name: str, *args: Any, **kwargs: Any) -> Any:
        if tap.random:
            recorder.note_random()
        call = recorder.next_call("tap", name)
        if tap.basis is not None:
            recorder.add("basis", name, call, tap.basis(*args, **kwargs))
        forced = None
        if replay is not None and tap.write is not None:
            decision = _recorded_decision(replay, decision_key(recorder.phase, name, call, ""), tap.random)
            forced = tap.write(decision, *args, **kwargs) if decision else None
        # under replay the side still decides itself, and that is recorded: forcing must not hide a wrong decision
        skip = forced is not None and (tap.random or not decide)
        if forced is not None and tap.random:
            original(*args, **kwargs)  # the generator must go on as it does where nothing is replayed
        own = forced if skip else original(*args, **kwargs)
        recorder.add("tap", name, call, tap.read(own, *args, **kwargs))
        if tap.random:
            recorder.note_random()
        return own if forced is None else forced

    return tapped


def _recorded_decision(replay: Mapping[str, torch.Tensor], prefix: str, may_be_absent: bool) -> Decision:
    """Return the decision; a draw that the other side did not make may be absent: it is drawn, and has no twin."""
    found = {key[len(prefix) :]: value for key, value in replay.items() if key.startswith(prefix)}
    if not found and not may_be_absent:
        raise ReplayError(
            "the decisions bundle holds no decision {}; it was recorded with other inputs or checks".format(prefix)
        )
    return found


def random_taps() -> Sequence[Tap]:
    """Return the taps of torch's random draws in use by contrastive denoising (``*_like``) and DropPath (``rand``).

    All draws of a phase are numbered in one sequence, and what each asked for is recorded: a replayed draw is taken as
    it is, so another order, shape or range would not show otherwise.
    """
    return [
        Tap(torch, "rand", _noise, _read_draw, _write_rand, random=True, basis=_asked_rand),
        Tap(torch, "rand_like", _noise, _read_draw, _write_draw, random=True, basis=_asked_rand_like),
        Tap(torch, "randint_like", _noise, _read_draw, _write_draw, random=True, basis=_asked_randint_like),
    ]


def _noise(*args: Any, **kwargs: Any) -> str:
    return "noise"


def _asked_rand(*size: Any, **kwargs: Any) -> Dict[str, Any]:
    shape = size[0] if size and isinstance(size[0], (tuple, list)) else size
    return {"rand.shape": torch.tensor([int(extent) for extent in shape], dtype=torch.int64)}


def _asked_rand_like(like: torch.Tensor, **kwargs: Any) -> Dict[str, Any]:
    return {"rand_like.shape": torch.tensor(like.shape, dtype=torch.int64)}


def _asked_randint_like(like: torch.Tensor, *bounds: int, **kwargs: Any) -> Dict[str, Any]:
    low, high = bounds if len(bounds) == 2 else (kwargs.get("low", 0), bounds[0] if bounds else kwargs["high"])
    shape = torch.tensor(like.shape, dtype=torch.int64)
    return {"randint_like.shape": shape, "randint_like.low": low, "randint_like.high": high}


def _read_draw(result: torch.Tensor, *args: Any, **kwargs: Any) -> Decision:
    return {"draw": result}


def _write_draw(decision: Decision, like: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return _fitting(decision["draw"], like.shape).to(device=like.device, dtype=kwargs.get("dtype") or like.dtype)


def _fitting(draw: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return the draw, in its first part or repeated where another shape is asked for; the difference is on record."""
    if tuple(draw.shape) == tuple(shape) or not draw.numel():
        return draw
    numel = int(torch.Size(shape).numel())
    return draw.reshape(-1).repeat(numel // draw.numel() + 1)[:numel].reshape(tuple(shape))


def _write_rand(decision: Decision, *size: Any, dtype: Any = None, device: Any = None, **kwargs: Any) -> torch.Tensor:
    shape = _asked_rand(*size)["rand.shape"].tolist()
    return _fitting(decision["draw"], shape).to(device=device, dtype=dtype or torch.get_default_dtype())


def within(indices: torch.Tensor, length: int) -> bool:
    """Tell whether all ``indices`` point into something that long."""
    return not indices.numel() or int(indices.max()) < length


def detections_tap() -> Tap:
    """Return the tap of ``Tensor.topk``, which picks the final detections in mmdet's DETR heads."""

    def write(decision: Decision, scores: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        indices = decision["indices"].to(scores.device)
        return (scores.gather(-1, indices), indices) if within(indices, scores.size(-1)) else None

    def read(result: Any, *args: Any, **kwargs: Any) -> Decision:
        return {"indices": result[1]}

    def basis(scores: torch.Tensor, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        return {"scores": scores}

    return Tap(torch.Tensor, "topk", lambda *a, **k: "detections", read, write, basis=basis)


def matching_tap(owner: Any, name: str) -> Tap:
    """Return the tap of scipy's ``linear_sum_assignment`` as imported by the module ``owner``."""

    def read(result: Any, *args: Any, **kwargs: Any) -> Decision:
        rows, cols = result
        return {"rows": torch.as_tensor(rows), "cols": torch.as_tensor(cols)}

    def write(decision: Decision, cost: Any, *args: Any, **kwargs: Any) -> Any:
        if not (within(decision["rows"], cost.shape[0]) and within(decision["cols"], cost.shape[1])):
            return None
        return decision["rows"].cpu().numpy(), decision["cols"].cpu().numpy()

    def basis(cost: Any, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        return {"cost": torch.as_tensor(cost)}

    return Tap(owner, "linear_sum_assignment", lambda *a, **k: name, read, write, basis=basis)
