"""Ways to plant a fault in a model: each returns a function that takes the built model and changes it.

They change this process for good, so a side with a fault runs in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

Apply = Callable[[nn.Module], None]
Change = Callable[..., Any]

replaced = patch.object


def setting(path: str, **attributes: Any) -> Apply:
    """Set attributes of the object at ``path``, which may go through plain attributes and indices."""

    def apply(model: nn.Module) -> None:
        for name, value in attributes.items():
            setattr(at(model, path), name, value)

    return apply


def at(model: nn.Module, path: str) -> Any:
    """Return the object at a dotted path of attributes, submodules and indices; the model itself for ``""``."""
    found: Any = model
    for part in filter(None, path.split(".")):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    return found


def around(path: str, method: str, change: Change) -> Apply:
    """Put ``change(right, *args, **kwargs)`` in place of a method; ``right`` is the method as it was."""
    return lambda model: wrap(at(model, path), method, change)


def patching(owner: Any, function: str, change: Change) -> Apply:
    """Put ``change(right, *args, **kwargs)`` in place of a function of a module or class."""
    return lambda model: wrap(owner, function, change)


def wrap(owner: Any, name: str, change: Change) -> None:
    """Replace ``owner.name`` and keep its signature, by which arguments are recorded."""
    right = getattr(owner, name)

    @wraps(right)
    def changed(*args: Any, **kwargs: Any) -> Any:
        return change(right, *args, **kwargs)

    setattr(owner, name, changed)


def calling(right: Change, change: Change) -> Change:
    """Return ``change(right, ...)`` as a function that calls ``right`` alone when it is entered again meanwhile.

    In float64 runs torch hands a call of its own Python functions on to the function of that name once more.
    """
    running = False

    def changed(*args: Any, **kwargs: Any) -> Any:
        nonlocal running
        if running:
            return right(*args, **kwargs)
        running = True
        try:
            return change(right, *args, **kwargs)
        finally:
            running = False

    return changed


def output(path: str, change: Callable[[Tensor], Any]) -> Apply:
    """Change what the module at ``path`` gives."""
    return around(path, "forward", lambda right, *args, **kwargs: change(right(*args, **kwargs)))


def result(path: str, method: str, change: Callable[[Any], Any]) -> Apply:
    """Change what a method gives."""
    return around(path, method, lambda right, *args, **kwargs: change(right(*args, **kwargs)))


def replacing(path: str, make: Callable[[], nn.Module]) -> Apply:
    """Put another module, without weights of its own, at ``path``."""

    def apply(model: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        at(model, parent)._modules[name] = make()

    return apply


def shadowing(path: str, attribute: str, value: Callable[[Any], Any]) -> Apply:
    """Make code that reads ``attribute`` of the module at ``path`` find ``value(module)``.

    What is registered under that name stays: weights load as always.
    """

    def apply(model: nn.Module) -> None:
        module = at(model, path)
        module.__dict__[attribute] = value(module)

    return apply


def together(*parts: Apply) -> Apply:
    """Plant several changes that make one fault."""

    def apply(model: nn.Module) -> None:
        for part in parts:
            part(model)

    return apply


def without_detach(module: str, function: str) -> Apply:
    """Make ``Tensor.detach`` do nothing in one function of the module named ``module``."""

    def detach(right: Change, tensor: Tensor) -> Tensor:
        frame = sys._getframe(2)
        here = frame.f_globals.get("__name__") == module and frame.f_code.co_name == function
        return tensor if here else right(tensor)

    return patching(torch.Tensor, "detach", detach)


class Backward(torch.autograd.Function):
    """Give the input; multiply the gradient by a number."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
