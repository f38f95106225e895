"""Values as modules take and give them: tensors and numbers inside tuples, lists and dicts, and call arguments."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch

#: Takes a slot and a tensor; gives the tensor to use instead, or None to keep it.
Change = Callable[[str, torch.Tensor], Optional[torch.Tensor]]
#: What counts as a number, numpy's included.
_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


def flatten(value: Any, slot: str = "") -> Iterator[Tuple[str, torch.Tensor]]:
    """Yield (slot, tensor) for every tensor, array and number inside tuples, lists and dicts; the rest is left out.

    A number becomes a 0-d tensor, so that a differing normalisation factor is seen; whatever its type, it is one in
    double precision: 1, 1.0 and True are one number.
    """
    if isinstance(value, torch.Tensor):
        yield slot, _whole(value)
    elif isinstance(value, _NUMBERS):
        yield slot, number(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "bif":
        yield slot, torch.from_numpy(np.array(value, order="C"))  # a copy: strides may be negative
    elif isinstance(value, dict):
        for key in value:
            yield from flatten(value[key], joined(slot, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flatten(item, joined(slot, str(index)))


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return what a tensor within ``torch.func.vmap`` is a slice of, with the dimension of the slices in front."""
    functorch = getattr(torch._C, "_functorch", None)
    while functorch is not None and functorch.is_batchedtensor(tensor):
        dimension = functorch.maybe_get_bdim(tensor)
        tensor = functorch.get_unwrapped(tensor)
        tensor = tensor.movedim(dimension, 0) if dimension else tensor
    return tensor


def number(value: Any) -> torch.Tensor:
    """Return a number as a trace keeps it."""
    return torch.tensor(float(value), dtype=torch.float64)


def changed(value: Any, change: Change, slot: str = "") -> Any:
    """Return ``value`` with some tensors and numbers in its tuples, lists and dicts replaced; itself if none is.

    Slots are those of :func:`flatten`.
    """
    if isinstance(value, torch.Tensor):
        other = change(slot, value)
        return value if other is None else other
    if isinstance(value, _NUMBERS):
        other = change(slot, number(value))
        return value if other is None else type(value)(other.item())
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


def named_arguments(bound: inspect.BoundArguments, defaults: bool = False) -> Dict[str, Any]:
    """Return a call's arguments by parameter name, so that positional and keyword calls record alike.

    Args:
        bound: to the signature; stays as it is.
        defaults: with those that were not given, so that a default given explicitly records alike, too.
    """
    if defaults:
        bound = inspect.BoundArguments(bound.signature, OrderedDict(bound.arguments))
        bound.apply_defaults()
    named = dict(bound.arguments)
    named.update(named.pop(_name_of(bound.signature, inspect.Parameter.VAR_KEYWORD), {}))
    return named


def changed_call(
    signature: inspect.Signature, args: Tuple[Any, ...], kwargs: Dict[str, Any], change: Change
) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
    """Return a call's arguments with some tensors and numbers replaced, slots as of :func:`named_arguments`.

    What was given by keyword still is: a decorator may look at keywords only. A default is given if it is replaced.
    """
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in signature.parameters.values() if parameter.kind in positional]
    named = [changed(value, change, name) for name, value in zip(names, args)]
    more = changed(args[len(names) :], change, _name_of(signature, inspect.Parameter.VAR_POSITIONAL))
    keywords = {name: changed(value, change, name) for name, value in kwargs.items()}
    for name in [name for name in _by_keyword(signature, len(args)) if name not in kwargs]:
        default = signature.parameters[name].default
        other = changed(default, change, name)
        if other is not default:
            keywords[name] = other
    return (*named, *more), keywords


def _by_keyword(signature: inspect.Signature, given: int) -> List[str]:
    """Return the parameters with a default that can be given by keyword behind ``given`` positional arguments."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    place = {name: index for index, name in enumerate(signature.parameters)}
    return [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in kinds
        and parameter.default is not parameter.empty
        and (parameter.kind is parameter.KEYWORD_ONLY or place[name] >= given)
    ]


def _name_of(signature: inspect.Signature, kind: Any) -> str:
    """Return the name of the parameter of ``kind``, one of which there is at most one; an empty string for none."""
    return next((parameter.name for parameter in signature.parameters.values() if parameter.kind == kind), "")
