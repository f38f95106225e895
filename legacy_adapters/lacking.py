"""Find operators that a model calls and that a stand-in for a compiled extension lacks, before the model is run.

A stand-in is a module that holds a dict under the name :data:`LACKING`: the operators that it was asked for and lacks,
each with a line that says what to do. Code that calls one is found without running it: in the methods of the model's
modules, and of the assigners, samplers and the like that they hold, and in the functions and autograd functions which
these name and which lie in a file that uses the extension. Code that reaches an operator in another way is found when
it is called.
"""

from __future__ import annotations

import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any, Dict, Iterator, List, Optional, Set

import torch

LACKING = "__lacking_operators__"

_FOREIGN = ("torch", "numpy", "builtins", "collections")
_DEPTH = 3  # of what a module holds: a list of objects, each with one of its own


def first_lacking(model: torch.nn.Module) -> Optional[str]:
    """Name the first operator, in the order of the model's modules, that its code calls and that is lacking.

    Returns:
        The class that calls it, the operator and what to do, in a line; None if there is none.
    """
    extensions = [module for module in list(sys.modules.values()) if _lacking_of(module)]
    if not extensions:
        return None
    search = _Search(extensions)
    for owner in _owners(model):
        found = search.of_class(owner)
        if found:
            return "{} calls what is lacking: {}".format(owner.__name__, found)
    return None


def _lacking_of(module: Any) -> Dict[str, str]:
    found = module.__dict__.get(LACKING) if isinstance(module, ModuleType) else None
    return found if isinstance(found, dict) else {}


def _owners(model: torch.nn.Module) -> Iterator[type]:
    """Give the classes of the model's modules and of the objects that these hold, each once."""
    classes: Set[type] = set()
    for module in model.modules():
        for held in (module, *_held(list(vars(module).values()), _DEPTH)):
            if type(held) not in classes:
                classes.add(type(held))
                yield type(held)


def _held(values: List[Any], depth: int) -> Iterator[Any]:
    """Give the objects of classes with methods of their own among some values and in what these hold."""
    for value in values:
        inner: List[Any] = []
        if isinstance(value, (list, tuple)):
            inner = list(value)
        elif isinstance(value, dict):
            inner = list(value.values())
        elif not isinstance(value, torch.nn.Module) and hasattr(value, "__dict__") and _is_own(type(value)):
            yield value
            inner = list(vars(value).values())
        if inner and depth:
            yield from _held(inner, depth - 1)


def _is_own(owner: type) -> bool:
    return owner.__module__.split(".")[0] not in _FOREIGN and not issubclass(owner, (type, ModuleType, FunctionType))


class _Search:
    """Reads code for names of lacking operators; what was read once is not read again."""

    def __init__(self, extensions: List[ModuleType]) -> None:
        self._extensions = {id(module): module for module in extensions}
        self._read: Set[int] = set()

    def of_class(self, owner: type) -> Optional[str]:
        """Return what to do about the first lacking operator that the methods of a class call; None without one."""
        for base in owner.__mro__:
            if _is_own(base) and id(base) not in self._read:
                self._read.add(id(base))
                for value in list(vars(base).values()):
                    found = self._of_function(value)
                    if found:
                        return found
        return None

    def _of_function(self, value: Any) -> Optional[str]:
        value = getattr(value, "__func__", value)  # of a static method and a class method
        while hasattr(value, "__wrapped__"):  # what a decorator replaced
            value = value.__wrapped__
        if not isinstance(value, FunctionType) or id(value) in self._read:
            return None
        self._read.add(id(value))
        names = list(dict.fromkeys(_names(value.__code__)))
        for name in names:
            found = self._of_value(value.__globals__.get(name), names)
            if found:
                return found
        return None

    def _of_value(self, value: Any, names: List[str]) -> Optional[str]:
        """Look into what code means by a name; ``names`` are all that stand in it, attributes included."""
        if id(value) in self._extensions:
            lacking = _lacking_of(value)
            return next((lacking[name] for name in names if name in lacking), None)
        if isinstance(value, ModuleType):
            parts = [part for part in map(value.__dict__.get, names) if not isinstance(part, ModuleType)]
            return next(filter(None, (self._of_value(part, []) for part in parts)), None)
        value = getattr(value, "__self__", value)  # `Function.apply` is the method of a class
        home = sys.modules.get(getattr(value, "__module__", None) or "")
        if home is None or not any(id(part) in self._extensions for part in list(vars(home).values())):
            return None
        if not isinstance(value, type):
            return self._of_function(value)
        # a module that is called is one of the model's; code may name its class only to ask for its kind
        return None if issubclass(value, torch.nn.Module) else self.of_class(value)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
