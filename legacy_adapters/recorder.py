"""Record every module call of a model, its taps, losses and gradients into a trace."""

from __future__ import annotations

import inspect
from collections import Counter
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Set, Tuple

import torch
from torch import nn

from .trace_writer import TraceWriter

#: Methods besides ``forward`` by which mmdet's heads are entered.
ENTRY_POINTS = ("loss", "predict")


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
            yield from flatten(value[key], _join(slot, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flatten(item, _join(slot, str(index)))


def _join(slot: str, part: str) -> str:
    return part if not slot else slot + "." + part


def named_arguments(signature: inspect.Signature, args: tuple, kwargs: dict) -> Dict[str, Any]:
    """Return the call's arguments by parameter name, so that positional and keyword calls record alike."""
    bound = dict(signature.bind(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            bound.update(bound.pop(parameter.name, {}))
    return bound


class Recorder:
    """Turn what a model computes into records.

    Args:
        writer: where the records go.
    """

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer
        self.phase = ""
        self._modules = True
        self.calls: Counter = Counter()
        self.leaf_modules: List[str] = []
        self.classes: Dict[str, str] = {}
        self._executed: Set[str] = set()
        self._running: List[str] = [""]
        self._next: Counter = Counter()

    @contextmanager
    def in_phase(self, phase: str, modules: bool = True) -> Iterator[None]:
        """Label what follows with ``phase`` and count calls from 0; ``modules=False`` counts module calls only."""
        self.phase, self._modules = phase, modules
        self._next.clear()
        try:
            yield
        finally:
            self.phase = ""

    def next_call(self, kind: str, name: str) -> int:
        """Return the call index of the next value of this kind and name."""
        index = self._next[kind, name]
        self._next[kind, name] += 1
        return index

    def add(self, kind: str, name: str, call: int, value: Any) -> None:
        """Record all tensors in ``value``; nothing outside a phase."""
        if self.phase:
            for slot, tensor in flatten(value):
                self.writer.add(self.phase, kind, name, call, slot, tensor, self._running[-1])

    def attach(self, model: nn.Module) -> None:
        """Wrap the ``forward`` of every submodule.

        The wrapper sits on the instance, not in a hook: it sees keyword arguments on every torch version, and calls
        that go to ``forward`` directly. Methods named in ``ENTRY_POINTS`` are followed for the records' scope only.
        """
        for name, module in model.named_modules():
            self.classes[name] = "{}.{}".format(type(module).__module__, type(module).__qualname__)
            if name:
                module.forward = self._recorded(name, module.forward, is_leaf=not any(True for _ in module.children()))
                for method in ENTRY_POINTS:
                    if hasattr(module, method):
                        setattr(module, method, self._followed(name, getattr(module, method)))

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        self._running.append(name)
        try:
            yield
        finally:
            self._running.pop()

    def _followed(self, name: str, method: Callable) -> Callable:
        def followed(*args: Any, **kwargs: Any) -> Any:
            with self._inside(name):
                return method(*args, **kwargs)

        return followed

    def _recorded(self, name: str, forward: Callable, is_leaf: bool) -> Callable:
        signature = inspect.signature(forward)
        if is_leaf:
            self.leaf_modules.append(name)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            if not self.phase:
                return forward(*args, **kwargs)
            call = self.next_call("module", name)
            if is_leaf:
                self.calls[self.phase, name] += 1
            self._executed.add(name)
            if not self._modules:
                with self._inside(name):
                    return forward(*args, **kwargs)
            self.add("module_in", name, call, named_arguments(signature, args, kwargs))
            with self._inside(name):
                result = forward(*args, **kwargs)
            self.add("module_out", name, call, result)
            return result

        return recorded

    def coverage(self) -> dict:
        """Return what was called how often, for the comparison's accounting."""
        calls = [dict(phase=phase, name=name, count=count) for (phase, name), count in sorted(self.calls.items())]
        never = sorted(set(self.leaf_modules) - self._executed)
        return dict(leaf_calls=calls, never_executed=never, classes=self.classes)
