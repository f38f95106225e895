"""Save the arguments of one module call, so that it can be made again alone."""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Dict, List

import torch
from torch import nn

from .values import named_arguments

ARGUMENTS, CALL = "arguments.safetensors", "call.json"


@dataclass(frozen=True)
class Target:
    """Which call, and where to put it.

    Attributes:
        phase: as of a record.
        name: path of the module.
        call: from 0.
        folder: must exist; gets the tensors (``arguments.safetensors``) and ``call.json``: ``arguments``, a Python
            expression per argument name, with tensors as ``t["..."]``, modules as ``model.get_submodule("...")`` and
            classes as ``load("module:Class")``; ``modules``, the paths of the modules; ``opaque``, the first argument
            that has no expression, else "".
    """

    phase: str
    name: str
    call: int
    folder: str

    def is_call(self, phase: str, name: str, call: int) -> bool:
        """Tell whether this is the call."""
        return (phase, name, call) == (self.phase, self.name, self.call)


class _OpaqueError(Exception):
    """A value has no expression; the message names it and its type."""


def save_call(target: Target, model: nn.Module, bound: inspect.BoundArguments) -> None:
    """Write the arguments of a call as they are now; see :class:`Target`."""
    tensors: Dict[str, torch.Tensor] = {}
    modules: Dict[int, str] = {id(module): name for name, module in model.named_modules()}
    used: List[str] = []
    places: Dict[int, str] = {}

    def expression(value: Any, slot: str) -> str:
        if isinstance(value, torch.Tensor):
            slot = places.setdefault(id(value), slot)  # given twice, it is one tensor
            tensors[slot] = value.detach().cpu().clone().contiguous()
            return "t[{!r}]".format(slot)
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        if is_dataclass(value) and not isinstance(value, type):
            parts = ", ".join(
                "{}={}".format(field.name, expression(getattr(value, field.name), "{}.{}".format(slot, field.name)))
                for field in fields(value)
                if field.init
            )
            return "load('{}:{}')({})".format(type(value).__module__, type(value).__qualname__, parts)
        if id(value) in modules:
            used.append(modules[id(value)])
            return "model.get_submodule({!r})".format(modules[id(value)])
        if type(value) is dict:
            items = ("{!r}: {}".format(key, expression(item, "{}.{}".format(slot, key))) for key, item in value.items())
            return "{" + ", ".join(items) + "}"
        if type(value) in (list, tuple, torch.Size):
            items = [expression(item, "{}.{}".format(slot, index)) for index, item in enumerate(value)]
            return "[" + ", ".join(items) + "]" if type(value) is list else "(" + "".join(i + ", " for i in items) + ")"
        raise _OpaqueError("{} ({})".format(slot, type(value).__name__))

    arguments, opaque = {}, ""
    try:
        for name, value in named_arguments(bound).items():
            arguments[name] = expression(value, name)
    except _OpaqueError as error:
        opaque = str(error)
    from safetensors.torch import save_file  # a script that only records need not have it

    save_file(tensors, os.path.join(target.folder, ARGUMENTS))
    with open(os.path.join(target.folder, CALL), "w", encoding="utf-8") as file:
        json.dump(dict(asdict(target), arguments=arguments, modules=used, opaque=opaque), file, indent=1)
