"""Values as modules take and give them: tensors and numbers inside tuples, lists and dicts, and call arguments."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch

#: Takes a slot and a tensor; gives the tensor to use instead, or None to keep it.
Change = Callable[[str, torch.Tensor], Optional[torch.Tensor]]


def flatten(value: Any, slot: str = "") -> Iterator[Tuple[str, torch.Tensor]]:
    """Yield (slot, tensor) for every tensor and number inside tuples, lists and dicts; other objects are left out.

    A number becomes a 0-d tensor, so that a differing normalisation factor is seen.
    """
    if isinstance(value, torch.Tensor):
        yield slot, value
    elif isinstance(value, (bool, int, float)):
        yield slot, torch.tensor(value)
    elif isinstance(value, dict):
        for key in value:
            yield from flatten(value[key], joined(slot, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flatten(item, joined(slot, str(index)))


def changed(value: Any, change: Change, slot: str = "") -> Any:
    """Return ``value`` with some tensors and numbers in its tuples, lists and dicts replaced; itself if none is.

    Slots are those of :func:`flatten`.
    """
    if isinstance(value, torch.Tensor):
        other = change(slot, value)
        return value if other is None else other
    if isinstance(value, (bool, int, float)):
        other = change(slot, torch.tensor(value))
        return value if other is None else other.item()
    if isinstance(value, dict):
        items = {key: changed(item, change, joined(slot, str(key))) for key, item in value.items()}
        return value if all(items[key] is value[key] for key in value) else items
    if isinstance(value, (list, tuple)):
        found: List[Any] = [changed(item, change, joined(slot, str(index))) for index, item in enumerate(value)]
        if all(one is two for one, two in zip(found, value)):
            return value
        return type(value)(*found) if hasattr(value, "_fields") else type(value)(found)
    return value


def joined(slot: str, part: str) -> str:
    """Return the slot of ``part`` inside ``slot``."""
    return part if not slot else slot + "." + part


def named_arguments(bound: inspect.BoundArguments) -> Dict[str, Any]:
    """Return a call's arguments by parameter name, so that positional and keyword calls record alike."""
    named = dict(bound.arguments)
    named.update(named.pop(_rest_of(bound.signature), {}))
    return named


def change_arguments(bound: inspect.BoundArguments, change: Change) -> None:
    """Replace some tensors and numbers in a call's arguments, in place; slots as of :func:`named_arguments`."""
    rest = _rest_of(bound.signature)
    for name, value in bound.arguments.items():
        if name == rest:
            bound.arguments[name] = {key: changed(item, change, key) for key, item in value.items()}
        else:
            bound.arguments[name] = changed(value, change, name)


def _rest_of(signature: inspect.Signature) -> str:
    """Return the name of the parameter that takes further keyword arguments, if there is one, else an empty string."""
    kinds = {parameter.kind: parameter.name for parameter in signature.parameters.values()}
    return kinds.get(inspect.Parameter.VAR_KEYWORD, "")
