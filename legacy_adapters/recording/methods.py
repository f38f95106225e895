"""Methods of a model and of its parts that are recorded beside the calls of modules.

A model is more than its modules: what its own code makes of their outputs travels in arguments and results of
methods, until it reaches the next module, a loss or a decision. Recording these tells which code made it.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Callable, Dict, Iterator, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from .kinds import METHOD_IN, METHOD_OUT

IN, OUT = METHOD_IN, METHOD_OUT
KINDS = (IN, OUT)

#: Gives from a module's path, a method's name and :data:`IN` or :data:`OUT` what the method finds elsewhere than in its
#: arguments, or leaves elsewhere than in its result, by slot: in a shared dict, say. Empty for nothing.
Aside = Callable[[str, str, str], Dict[str, Any]]


def nothing_aside(name: str, method: str, kind: str) -> Dict[str, Any]:
    """Say that methods pass everything in arguments and results."""
    return {}


def methods_of(module: nn.Module, names: Sequence[str]) -> Iterator[Tuple[str, Callable]]:
    """Yield name and bound method of those methods of ``module`` that are recorded, ``names``."""
    for name in names:
        method = getattr(module, name, None)
        if callable(method) and not isinstance(method, nn.Module):
            yield name, method


def plain(value: Any) -> Any:
    """Return ``value`` as tensors and numbers in dicts and lists, with the content of data samples and dataclasses.

    Data samples and instances of mmengine are told by their ``all_items``, which gives meta information, too. What is
    neither of these is left out.
    """
    if isinstance(value, (torch.Tensor, bool, int, float)):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value)) if value.dtype.kind in "biuf" else None
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if callable(getattr(value, "all_items", None)) and not isinstance(value, (type, nn.Module)):
        return {key: plain(item) for key, item in value.all_items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return None
