"""Taps: functions whose discrete results (or random draws) are recorded and can be forced.

Top-k, NMS, Hungarian matching and random draws are not continuous: an input that differs in its last bit may give
quite another result. A tap records such a result; given the *decisions* of another run it can force it (replay), so
that the continuous code around it is compared under identical decisions.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch

from . import kinds
from .draws import random_taps
from .recomputing import digests, in_backward
from .recorder import Recorder
from .replay import Decision, Replay, ReplayError, decision_key, is_ranking
from .tap import Tap, everywhere
from .values import flatten

__all__ = ["Decision", "ReplayError", "Tap", "decision_key", "everywhere", "installed", "random_taps", "within"]


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
        made: decisions that were forced, by what they rest on, for code that gradient checkpointing runs again.
    """

    def __init__(self, recorder: Recorder, replay: Optional[Replay], decide: bool) -> None:
        self.recorder, self.replay, self.decide = recorder, replay, decide
        self.running = False
        self.made: Dict[Tuple[str, ...], Decision] = {}


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
            if tap.many:
                return original(*args, **kwargs) if in_backward() else watched_many(name, *args, **kwargs)
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
            if decision and is_ranking(basis or ()):
                with recorder.paused():
                    decision = as_long_as(tap.read(original(*args, **kwargs), *args, **kwargs), decision, basis)
            forced = tap.write(decision, *args, **kwargs) if decision else None
        # under replay the side still decides itself, and that is recorded: forcing must not hide a wrong decision
        skip = forced is not None and (tap.random or not watch.decide)
        if forced is not None:
            watch.made[place(name, basis)] = decision
            if tap.random:
                _moved(original, *args, **kwargs)  # for the state of the generator, by which a repeated draw is known
        read = tap.read(None if forced is None else decision, *args, **kwargs) if tap.ahead else None
        own = forced if skip else original(*args, **kwargs)
        recorder.add(kinds.TAP, name, call, tap.read(own, *args, **kwargs) if read is None else read)
        if tap.random:
            recorder.note_random()
        return own if forced is None else forced

    def watched_many(name: str, *args: Any, **kwargs: Any) -> Any:
        own = original(*args, **kwargs)
        with recorder.paused():  # what is computed to tell what decisions rest on is no part of the run
            bases, decisions = tap.basis(*args, **kwargs), tap.read(own, *args, **kwargs)
        forced: List[Decision] = []
        for basis, decision in zip(bases, decisions):
            call = recorder.next_call(kinds.TAP, name)
            recorder.add(kinds.BASIS, name, call, basis)
            recorder.add(kinds.TAP, name, call, decision)
            given = replay.decision(recorder.phase, name, call, basis) if replay is not None else {}
            forced.append(as_long_as(decision, given, basis) if given and is_ranking(basis) else given)
        if not any(forced):
            return own
        with recorder.paused():
            return tap.write(forced, own, *args, **kwargs)

    def repeated(name: str, *args: Any, **kwargs: Any) -> Any:
        basis = tap.basis(*args, **kwargs) if tap.basis is not None else None
        decision = watch.made.get(place(name, basis)) if watch.made else None
        if decision is None:
            return original(*args, **kwargs)
        forced = tap.write(decision, *args, **kwargs)
        if tap.random:
            _moved(original, *args, **kwargs)
        return forced

    def place(name: str, basis: Optional[Dict[str, Any]]) -> Tuple[str, ...]:
        state = digests([("", torch.get_rng_state())]) if tap.random else ()
        return (recorder.phase, name, *state, *digests(flatten(basis)))

    return tapped


def _moved(function: Callable, *args: Any, **kwargs: Any) -> None:
    """Let a function draw for nothing; what it would change in place stays as it is."""
    with torch.no_grad():
        function(*(arg.detach().clone() if isinstance(arg, torch.Tensor) else arg for arg in args), **kwargs)


def as_long_as(own: Decision, given: Decision, basis: Mapping[str, Any]) -> Decision:
    """Return the ranking of another run, as long as this run's own, and with its dimensions of length 1.

    How many to list is the request of this side, and no near-tie: were it replayed as well, a wrong number would have
    no effect on what follows.
    """
    forced, wanted, scores = the_only(given), the_only(own), basis["scores"]
    if forced is None or wanted is None or not (forced.dim() and wanted.dim() and scores.dim()):
        return given
    if forced.shape != wanted.shape and forced.squeeze().shape == wanted.squeeze().shape:
        return {slot: forced.reshape(wanted.shape) for slot in given}
    length = wanted.shape[-1]
    if forced.shape[-1] == length or forced.shape[:-1] != scores.shape[:-1] or not within(forced, scores.shape[-1]):
        return given
    if forced.shape[-1] < length:
        forced = _completed(forced.to(scores.device), scores)
    return {slot: forced[..., :length] for slot in given}


def within(indices: torch.Tensor, length: int) -> bool:
    """Tell whether all ``indices`` point into something that long."""
    return not indices.numel() or int(indices.max()) < length


def rankings(name: str = "detections") -> List[Tap]:
    """Return the taps of torch's functions that rank scores: ``topk``, ``sort`` and ``argsort``, however called.

    They are one decision: the indices of scores, best first, along the last axis of what is recorded. One that ranks
    from the lowest on ranks negated scores.
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
        return name if isinstance(scores, torch.Tensor) and scores.is_floating_point() and scores.dim() > 0 else None

    def read(result: Any, scores: torch.Tensor, *args: Any, **kwargs: Any) -> Decision:
        indices = result if give is None else result[1]
        return {"indices": indices.movedim(asked(scores, *args, **kwargs)[0], -1)}

    def basis(scores: torch.Tensor, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        axis, largest_first = asked(scores, *args, **kwargs)
        along = scores.movedim(axis, -1)
        in_order = attribute != "topk" or (args[3] if len(args) > 3 else kwargs.get("sorted", True))
        return dict(scores=along if largest_first else -along, **({} if in_order else dict(sorted=False)))

    def write(decision: Decision, scores: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        axis, forced = asked(scores, *args, **kwargs)[0], the_only(decision)
        given, scores = scores, scores.movedim(axis, -1)
        if forced is None or forced.shape[:-1] != scores.shape[:-1] or not within(forced, scores.size(-1)):
            return None
        indices = forced.to(scores.device).movedim(-1, axis)
        return indices if give is None else give((given.gather(axis, indices), indices))

    return Tap(owner, attribute, named, read, write, basis=basis)


def _completed(forced: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return all indices of ``scores`` [..., n]: the ``forced`` ones [..., k] first, the rest best first."""
    order = scores.detach().argsort(-1, descending=True)
    taken = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, forced, True)
    # of each list n - k are left: [..., n - k]
    rest = order[~taken.gather(-1, order)].view(scores.shape[:-1] + (-1,))
    return torch.cat([forced, rest], -1)


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
