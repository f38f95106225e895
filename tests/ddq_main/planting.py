"""How faults are planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Plant = Callable[[nn.Module], None]


def setting(path: str, value: Any) -> Plant:
    """Return what sets one attribute of the model, at a dotted path; numbers are indices."""

    def plant(model: nn.Module) -> None:
        *parents, last = path.split(".")
        holder: Any = model
        for part in parents:
            holder = holder[int(part)] if part.isdigit() else getattr(holder, part)
        if isinstance(holder, dict | list):
            holder[int(last) if last.isdigit() else last] = value
        else:
            setattr(holder, last, value)

    return plant


def replacing(owner: Any, name: str, changed: Callable[[Callable], Callable]) -> Plant:
    """Return what puts ``changed(right)`` in the place of a function of a module or class."""

    def plant(model: nn.Module) -> None:
        setattr(owner, name, changed(getattr(owner, name)))

    return plant


def with_arguments(change: Callable[..., tuple]) -> Callable[[Callable], Callable]:
    """Return what gives a function other positional arguments: those that ``change`` makes of its own."""
    return lambda right: lambda *args, **kwargs: right(*change(*args), **kwargs)


def with_result(change: Callable[[Any], Any]) -> Callable[[Callable], Callable]:
    """Return what changes the result of a function."""
    return lambda right: lambda *args, **kwargs: change(right(*args, **kwargs))


def labels_exchanged(found: Any) -> Any:
    """Give detections of an image of class 1 as class 2, and those of class 2 as class 1."""
    found.labels = torch.tensor([0, 2, 1])[found.labels]
    return found
