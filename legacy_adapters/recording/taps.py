"""Taps: functions whose discrete results (or random draws) are recorded and can be forced.

Top-k, NMS, Hungarian matching and random draws are not continuous: an input that differs in its last bit may give
quite another result. A tap records such a result; given the *decisions* of another run it can force it (replay), so
that the continuous code around it is compared under identical decisions.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import AbstractSet, Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from . import kinds
from .recomputing import digests, in_backward
from .recorder import Recorder
from .replay import Decision, Replay, ReplayError, decision_key
from .values import flatten

__all__ = ["Decision", "ReplayError", "Tap", "decision_key", "everywhere", "installed", "within"]


@dataclass(frozen=True)
class Tap:
    """A function to watch.

    Attributes:
        owner: module or class that holds the function under ``attribute``.
        attribute: name of the function there.
        name: gives the tap's name from the call's arguments, e.g. ``match``; None means "do not record this call".
        read: takes the result and the call's arguments and gives the decision in it, as named tensors.
        write: takes a decision and the call's arguments and gives the result the function would have returned, or
            None if the decision does not fit the arguments, as that of more queries; None if the tap is only watched.
        random: a draw, not a decision: a replayed one is taken as it is; what the function draws only moves the generator.
        basis: gives from the call's arguments what the decision rests on, as named tensors and numbers: ``scores`` of
            a ranking; ``boxes`` [n, 4] xyxy, ``scores`` [n], ``iou_threshold``, ``max_num`` of an NMS; ``cost`` of a
            matching. It is recorded too, so that a decision that differs can be told from a tie.
        probe: gives arguments of further calls, which the worker makes after an inference, in the phase
            :data:`legacy_adapters.tasks.probes.PHASE`; None for none.
        first: name of the function's first parameter: a call that passes it by name is taken as one that does not.
    """

    owner: Any
    attribute: str
    name: Callable[..., Optional[str]]
    read: Callable[..., Decision]
    write: Optional[Callable[..., Any]] = None
    random: bool = False
    basis: Optional[Callable[..., Dict[str, Any]]] = None
    probe: Optional[Callable[[], Iterable[Tuple[Any, ...]]]] = None
    first: str = "input"


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
    watch = _Watch(recorder, None if replay is None else Replay(replay), decide)
    for tap, original in originals:
        setattr(tap.owner, tap.attribute, _tapped(tap, original, watch))
    try:
        yield
    finally:
        for tap, original in originals:
            setattr(tap.owner, tap.attribute, original)


class _Watch:
    """What all taps of a run share.

    Attributes:
        recorder: gets the records.
        replay: hands out decisions, or None.
        decide: under replay, every function decides itself as well.
        running: a tapped function is; what it calls on the way is no decision of the model's.
        made: forced results by what they rest on, for code that gradient checkpointing runs again.
    """

    def __init__(self, recorder: Recorder, replay: Optional[Replay], decide: bool) -> None:
        self.recorder, self.replay, self.decide = recorder, replay, decide
        self.running = False
        self.made: Dict[Tuple[str, ...], Any] = {}


def _tapped(tap: Tap, original: Callable, watch: _Watch) -> Callable:
    recorder, replay = watch.recorder, watch.replay

    def tapped(*args: Any, **kwargs: Any) -> Any:
        if not args and tap.first in kwargs:
            args, kwargs = (kwargs[tap.first],), {key: value for key, value in kwargs.items() if key != tap.first}
        name = tap.name(*args, **kwargs) if recorder.phase and not watch.running else None
        if name is None:
            return original(*args, **kwargs)
        watch.running = True  # in a float64 run torch hands the call on to the wrapper once more
        try:
            return (repeated if in_backward() else watched)(name, *args, **kwargs)
        finally:
            watch.running = False

    def watched(name: str, *args: Any, **kwargs: Any) -> Any:
        if tap.random:
            recorder.note_random()
        call = recorder.next_call(kinds.TAP, name)
        basis = tap.basis(*args, **kwargs) if tap.basis is not None else None
        if basis is not None:
            recorder.add(kinds.BASIS, name, call, basis)
        forced = None
        if replay is not None and tap.write is not None:
            phase = recorder.phase
            decision = replay.draw(phase, name, call) if tap.random else replay.decision(phase, name, call, basis)
            forced = tap.write(decision, *args, **kwargs) if decision else None
        # under replay the side still decides itself, and that is recorded: forcing must not hide a wrong decision
        skip = forced is not None and (tap.random or not watch.decide)
        if forced is not None:
            watch.made[place(name, basis)] = forced
            if tap.random:
                original(*args, **kwargs)  # for the state of the generator, by which a repeated draw is known
        own = forced if skip else original(*args, **kwargs)
        recorder.add(kinds.TAP, name, call, tap.read(own, *args, **kwargs))
        if tap.random:
            recorder.note_random()
        return own if forced is None else forced

    def repeated(name: str, *args: Any, **kwargs: Any) -> Any:
        basis = tap.basis(*args, **kwargs) if tap.basis is not None else None
        forced = watch.made.get(place(name, basis)) if watch.made else None
        if forced is None or tap.random:
            own = original(*args, **kwargs)
        return own if forced is None else forced

    def place(name: str, basis: Optional[Dict[str, Any]]) -> Tuple[str, ...]:
        state = digests([("", torch.get_rng_state())]) if tap.random else ()
        return (recorder.phase, name, *state, *digests(flatten(basis)))

    return tapped


def random_taps() -> Sequence[Tap]:
    """Return the taps of torch's random draws in use by contrastive denoising (``*_like``) and DropPath (``rand``).

    All draws of a phase are numbered in one sequence, and what each asked for is recorded: a replayed draw is taken as
    it is, so another order, shape or range would not show otherwise.
    """
    return [
        Tap(torch, "rand", _noise, _read_draw, _write_rand, random=True, basis=_asked_rand, first="size"),
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


def within(indices: torch.Tensor, length: int) -> bool:
    """Tell whether all ``indices`` point into something that long."""
    return not indices.numel() or int(indices.max()) < length


def holds(module: ModuleType, ids: AbstractSet[int]) -> bool:
    """Tell whether a module holds, under any name, an object whose ``id`` is among ``ids``.

    Of the thousands of modules in a process few do, so this must be quick: it runs no Python code per name.
    """
    return not ids.isdisjoint(map(id, list(vars(module).values())))


def everywhere(tap: Tap) -> List[Tap]:
    """Return the tap for every name under which any imported module holds its function, its own first.

    Code may import the function under another name, or from where it comes from.
    """
    function = getattr(tap.owner, tap.attribute)
    found = [tap]
    for module in list(sys.modules.values()):
        names = vars(module) if isinstance(module, ModuleType) and holds(module, {id(function)}) else {}
        for attribute, value in list(names.items()):
            if value is function and not (module is tap.owner and attribute == tap.attribute):
                found.append(replace(tap, owner=module, attribute=attribute))
    return found


def rankings(name: str = "detections") -> List[Tap]:
    """Return the taps of torch's functions that rank scores: ``topk``, ``sort`` and ``argsort``, however called.

    They are one decision: the indices of scores, best first. One that ranks from the lowest on ranks negated scores.
    In mmdet's heads of queries it picks the final detections.
    """
    topk, sort = torch.return_types.topk, torch.return_types.sort
    return [
        _ranking(owner, attribute, name, give)
        for attribute, give in (("topk", topk), ("sort", sort), ("argsort", None))
        for owner in (torch.Tensor, torch)
    ]


def _ranking(owner: Any, attribute: str, name: str, give: Optional[Callable]) -> Tap:
    """Make the tap of one function; ``give`` makes its result of values and indices, None if that is indices alone."""

    def asked(scores: torch.Tensor, *args: Any, **kwargs: Any) -> Tuple[int, bool]:
        """Return the axis and whether the largest come first."""
        if attribute == "topk":
            names, given = ("k", "dim", "largest", "sorted"), dict(dim=-1, largest=True)
        elif "stable" in kwargs and attribute == "sort":
            names, given = ("dim", "descending"), dict(dim=-1, descending=False)
        else:
            names, given = ("dim", "descending", "stable"), dict(dim=-1, descending=False)
        given.update(zip(names, args))
        given.update(kwargs)
        return int(given["dim"]), bool(given["largest" if attribute == "topk" else "descending"])

    def named(scores: Any, *args: Any, **kwargs: Any) -> Optional[str]:
        is_ranking = isinstance(scores, torch.Tensor) and scores.is_floating_point() and scores.dim() > 0
        return name if is_ranking and asked(scores, *args, **kwargs)[0] in (-1, scores.dim() - 1) else None

    def read(result: Any, *args: Any, **kwargs: Any) -> Decision:
        return {"indices": result if give is None else result[1]}

    def basis(scores: torch.Tensor, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        return {"scores": scores if asked(scores, *args, **kwargs)[1] else -scores}

    def write(decision: Decision, scores: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        forced = the_only(decision)
        if forced is None or forced.shape[:-1] != scores.shape[:-1] or not within(forced, scores.size(-1)):
            return None
        forced = forced.to(scores.device)
        length = scores.size(-1)
        if attribute == "topk":
            length = int(args[0] if args else kwargs["k"])
        if forced.size(-1) < length:
            if forced.dim() != 1:
                return None
            forced = _completed(forced, basis(scores, *args, **kwargs)["scores"])
        indices = forced[..., :length]
        return indices if give is None else give((scores.gather(-1, indices), indices))

    return Tap(owner, attribute, named, read, write, basis=basis)


def _completed(forced: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return all indices of ``scores`` [n]: the ``forced`` ones first, the rest best first."""
    rest = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    rest[forced] = False
    left = rest.nonzero().view(-1)
    return torch.cat([forced, left[scores.detach()[left].argsort(descending=True)]])


def the_only(decision: Decision) -> Optional[torch.Tensor]:
    """Return the list of indices that a decision is; None if it is something else."""
    return next(iter(decision.values())) if len(decision) == 1 else None


def matchings(names: Mapping[ModuleType, str], name: str = "match") -> List[Tap]:
    """Return the taps of scipy's ``linear_sum_assignment``, under whatever name any module holds it.

    Args:
        names: of the tap, for the modules that import the function as ``linear_sum_assignment``.
        name: for all others.
    """
    own = [matching_tap(module, tap_name) for module, tap_name in names.items()]
    if "scipy.optimize" not in sys.modules:
        return own
    others = everywhere(matching_tap(sys.modules["scipy.optimize"], name))
    taken = {(id(tap.owner), tap.attribute) for tap in own}
    return own + [tap for tap in others if (id(tap.owner), tap.attribute) not in taken]


def matching_tap(owner: Any, name: str) -> Tap:
    """Return the tap of scipy's ``linear_sum_assignment`` as imported by the module ``owner``."""

    def read(result: Any, *args: Any, **kwargs: Any) -> Decision:
        rows, cols = result
        return {"rows": torch.as_tensor(rows), "cols": torch.as_tensor(cols)}

    def write(decision: Decision, cost_matrix: Any, *args: Any, **kwargs: Any) -> Any:
        if set(decision) != {"rows", "cols"}:
            return None
        if not (within(decision["rows"], cost_matrix.shape[0]) and within(decision["cols"], cost_matrix.shape[1])):
            return None
        return decision["rows"].cpu().numpy(), decision["cols"].cpu().numpy()

    def basis(cost_matrix: Any, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        return {"cost": torch.as_tensor(cost_matrix)}

    return Tap(owner, "linear_sum_assignment", lambda *a, **k: name, read, write, basis=basis)
