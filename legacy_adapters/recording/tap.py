"""What is watched of a function whose discrete results, or random draws, are recorded and can be forced."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import AbstractSet, Any, Callable, Dict, Iterable, List, Optional, Tuple

from .replay import Decision


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
        random: a draw, not a decision: a replayed one is taken as it is; what the function draws only moves the
            generator.
        ahead: the draw does not stand in the result: ``read`` takes None in its place, before the function runs, and
            leaves the generator as it was; of a replayed draw it takes that.
        basis: gives from the call's arguments what the decision rests on, as named tensors and numbers: ``scores`` of
            a ranking; ``boxes`` [n, 4] xyxy, ``scores`` [n], ``iou_threshold``, ``max_num`` of an NMS; ``cost`` of a
            matching; ``overlaps`` [k, n] and thresholds of an assignment. It is recorded too, so that a decision that differs can be told from a tie.
        probe: gives arguments of further calls, which the worker makes after an inference, in the phase
            :data:`legacy_adapters.tasks.probes.PHASE`; None for none.
        first: name of the function's first parameter: a call that passes it by name is taken as one that does not.
        many: the function decides for several samples at once, such as all images of a batch. ``basis`` and ``read``
            then give a list with an entry for each, recorded as if each were decided by a call of its own, and ``write``
            takes a list of decisions, empty where the side's own stands, and the function's result before the call's
            arguments.
    """

    owner: Any
    attribute: str
    name: Callable[..., Optional[str]]
    read: Callable[..., Decision]
    write: Optional[Callable[..., Any]] = None
    random: bool = False
    ahead: bool = False
    basis: Optional[Callable[..., Dict[str, Any]]] = None
    probe: Optional[Callable[[], Iterable[Tuple[Any, ...]]]] = None
    first: str = "input"
    many: bool = False


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
