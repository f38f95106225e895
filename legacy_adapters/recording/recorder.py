"""Record every module call of a model, its taps, losses and gradients into a trace."""

from __future__ import annotations

import inspect
from collections import Counter
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import torch
from torch import nn

from ..numerics.seeding import RandomWatch
from ..origin import MODULE, PHASE, note
from . import kinds
from .extract import Target, save_call
from .forcing import Forcing
from .gradients import GradientFlow, Share
from .methods import IN, OUT, Aside, methods_of, nothing_aside, plain
from .recomputing import FirstCall, FirstCalls, digests, in_backward
from .trace_writer import Key, TraceWriter
from .values import Change, changed, changed_call, flatten, joined, named_arguments


def as_it_is(value: Any) -> Any:
    """Return a value as modules take and give it."""
    return value


class Recorder:
    """Turn what a model computes into records.

    Args:
        writer: where the records go.
        gradient_flow: record gradients over the borders of module calls, too.
        forcing: values of another run to go on with instead of the model's own, or None. Records are its own.
        target: a call whose arguments are saved, or None.
        aside: gives what methods pass elsewhere than in their arguments and results.
        methods: names of those that are recorded.
        opened: makes of a value that modules take or give one whose tensors are in tuples, lists and dicts.
        root: record calls of the model itself as well, under the empty name.
        before: is called before every call that code outside of the model makes, of the model or of a part of it.
    """

    def __init__(
        self,
        writer: TraceWriter,
        gradient_flow: bool = False,
        forcing: Optional[Forcing] = None,
        target: Optional[Target] = None,
        aside: Aside = nothing_aside,
        methods: Sequence[str] = (),
        opened: Callable[[Any], Any] = as_it_is,
        root: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.writer = writer
        self._opened, self._root, self._before = opened, root, before
        self._wrapped: List[Tuple[nn.Module, str, Any]] = []
        self._names = tuple(methods)
        self._aside = aside
        self._target = target
        self._flow = GradientFlow(self._add_gradient, self._is_missing) if gradient_flow else None
        self._forcing = forcing
        self.phase = ""
        self._modules = self._calls = self._methods = True
        self._draws = False
        self.calls: Counter = Counter()
        self._inner_calls: Counter = Counter()
        self.leaf_modules: List[str] = []
        self.classes: Dict[str, str] = {}
        self._parameters: Dict[str, List[str]] = {}
        self._executed: Set[str] = set()
        self._running: List[str] = [""]
        self._next: Counter = Counter()
        self._cut_off: List[Key] = []
        self._random = RandomWatch()
        self._drawn: Set[str] = set()
        self._strange: List[Tuple[str, str, str, int, str]] = []
        self._first_calls = FirstCalls()

    @contextmanager
    def in_phase(
        self,
        phase: str,
        modules: bool = True,
        calls: bool = True,
        draws: bool = False,
        methods: Optional[bool] = None,
        idle_generators: bool = True,
    ) -> Iterator[None]:
        """Label what follows with ``phase`` and count calls from 0.

        Args:
            phase: the label.
            modules: record module calls; else they are only counted.
            calls: False does not even count them; what is added, and taps, remain.
            draws: record the states of random generators, which must have been seeded for this phase.
            methods: record methods; None records them where modules are.
            idle_generators: with ``draws``, record at the end the states of generators that nothing was drawn from, too.
        """
        self.phase, self._modules, self._calls, self._draws = phase, modules and calls, calls, draws
        self._methods = self._modules if methods is None else methods
        self._next.clear()
        self._drawn.clear()
        self._random.moved()  # what happened before is of no interest
        try:
            yield
            self.note_random()
            for generator, digest in self._random.all().items() if draws else ():
                if idle_generators or generator in self._drawn:
                    self.add(kinds.RANDOM, generator, 0, {"end": digest})
        except BaseException as error:
            note(error, PHASE, phase)
            raise
        finally:
            if self._flow is not None:
                self._cut_off += [self._key(share) for share in self._flow.cut_off]
                self._flow.clear()
            self._first_calls.clear()
            self.phase = ""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record and count nothing of what is called meanwhile."""
        phase, self.phase = self.phase, ""
        try:
            yield
        finally:
            self.phase = phase

    @property
    def has_calls(self) -> bool:
        """Tell whether a module was called within a phase."""
        return bool(self._executed)

    @property
    def scope(self) -> str:
        """The path of the module whose code is running; empty for the model itself."""
        return self._running[-1]

    def note_random(self) -> None:
        """Record the states of random generators that have changed, as changed by the code that runs.

        To be called wherever other code takes over, and around every draw.
        """
        if self.phase and self._draws and not in_backward():
            for generator, digest in self._random.moved().items():
                self._drawn.add(generator)
                self.add(kinds.RANDOM, generator, self.next_call(kinds.RANDOM, generator), digest)

    def next_call(self, kind: str, name: str) -> int:
        """Return the call index of the next value of this kind and name."""
        index = self._next[kind, name]
        self._next[kind, name] += 1
        return index

    def add(self, kind: str, name: str, call: int, value: Any, scope: Optional[str] = None) -> None:
        """Record all tensors in ``value``, of the module that is running unless ``scope`` names one.

        Outside a phase nothing is recorded.
        """
        if self.phase:
            for slot, tensor in flatten(self._opened(value)):
                where = self.scope if scope is None else scope
                self.writer.add(self.phase, kind, name, call, slot, tensor, where)

    def _add_gradient(self, share: Share, gradient: torch.Tensor, explained: bool) -> Optional[torch.Tensor]:
        """Record a gradient on its way back; see :data:`legacy_adapters.recording.gradients.Add`.

        In a forced run, an output's gradient that differs because a module contributed something else to it is not an
        error of the code around that module: the forced one is recorded.
        """
        if not self.phase:
            return None
        other = None if self._forcing is None else self._forcing.value(self._key(share), gradient)
        own = other if explained and other is not None else gradient
        self.writer.add(self.phase, share.kind, share.name, share.call, share.slot_of_pass, own, share.scope)
        share.passes += 1
        return other

    def _is_missing(self, share: Share) -> bool:
        return self._forcing is not None and self._forcing.has(self._key(share))

    def _key(self, share: Share) -> Key:
        return self.phase, share.kind, share.name, share.call, share.slot_of_pass

    def _forced(self, kind: str, name: str, call: int, method: str = "") -> Change:
        def change(slot: str, tensor: torch.Tensor) -> Optional[torch.Tensor]:
            return self._forcing.value((self.phase, kind, name, call, joined(method, slot) if slot else method), tensor)

        return change

    def attach(self, model: nn.Module) -> None:
        """Wrap the ``forward`` of every submodule, and the methods of :mod:`.methods` of every module.

        The wrapper sits on the instance, not in a hook: it sees keyword arguments on every torch version, and calls
        that go to ``forward`` directly.
        """
        for name, module in model.named_modules():
            self.classes[name] = "{}.{}".format(type(module).__module__, type(module).__qualname__)
            if name or self._root:
                self._put(module, "forward", self._recorded(model, name, module))
            for method, bound in list(methods_of(module, self._names)):
                self._put(module, method, self._followed(name, method, bound))

    def _put(self, module: nn.Module, method: str, wrapper: Callable) -> None:
        self._wrapped.append((module, method, vars(module).get(method)))
        setattr(module, method, wrapper)

    def detach(self) -> None:
        """Take every wrapper away again; what a module had of its own in its place is put back."""
        for module, method, own in reversed(self._wrapped):
            delattr(module, method)
            if own is not None:
                setattr(module, method, own)
        self._wrapped.clear()

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        self._running.append(name)
        try:
            yield
        except BaseException as error:
            note(error, MODULE, name)
            raise
        finally:
            self._running.pop()

    def _followed(self, name: str, method: str, original: Callable) -> Callable:
        """Record arguments and result of a method; what it does has its module as scope."""
        signature = inspect.signature(original)

        def followed(*args: Any, **kwargs: Any) -> Any:
            records = self.phase and self._methods and not in_backward()
            self.note_random()
            if records:
                call = self.next_call(name, method)
                arguments = named_arguments(signature.bind(*args, **kwargs))
                self.add(IN, name, call, {method: plain(arguments)})
                self.add(IN, name, call, {method: plain(self._aside(name, method, IN))})
                if self._forcing is not None:
                    args, kwargs = changed_call(signature, args, kwargs, self._forced(IN, name, call, method))
            with self._inside(name):
                result = original(*args, **kwargs)
                self.note_random()
            if records:
                self.add(OUT, name, call, {method: plain(result)})
                self.add(OUT, name, call, {method: plain(self._aside(name, method, OUT))})
                if self._forcing is not None:
                    result = changed(result, self._forced(OUT, name, call, method))
            return result

        return followed

    def _recorded(self, model: nn.Module, name: str, module: nn.Module) -> Callable:
        forward, is_leaf = module.forward, not any(True for _ in module.children())
        signature = inspect.signature(forward)
        self._parameters[name] = list(signature.parameters)
        if is_leaf:
            self.leaf_modules.append(name)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            if not self.phase:
                return forward(*args, **kwargs)
            if not self._calls:
                with self._inside(name):
                    return forward(*args, **kwargs)
            if in_backward():
                return self._computed_again(name, signature, forward, args, kwargs)
            if len(self._running) == 1:
                self._before()
            call, scope = self.next_call("module", name), self.scope
            counted = self.calls if is_leaf else self._inner_calls
            counted[self.phase, name] += 1
            self._executed.add(name)
            self.note_random()
            if not self._modules:
                with self._inside(name):
                    result = forward(*args, **kwargs)
                    self.note_random()
                self._look_at(result, name, call, scope, (args, kwargs))
                return result
            bound = signature.bind(*args, **kwargs)
            given = named_arguments(bound, defaults=True)
            self.add(kinds.MODULE_IN, name, call, given)
            if self._repeats():
                first = FirstCall(call, scope, torch.is_grad_enabled(), digests(flatten(self._opened(given))))
                self._first_calls.add(name, first)
            if self._forcing is not None:
                args, kwargs = changed_call(signature, args, kwargs, self._forced(kinds.MODULE_IN, name, call))
                bound = signature.bind(*args, **kwargs)
            if self._target is not None and self._target.is_call(self.phase, name, call):
                save_call(self._target, model, bound)
            entered = None
            if self._flow is not None:
                entered = self._flow.enter(name, call, scope, flatten(self._opened(named_arguments(bound))))
            with self._inside(name):
                result = forward(*args, **kwargs)
                self.note_random()
            self.add(kinds.MODULE_OUT, name, call, result)
            if entered is not None:
                self._flow.leave(entered, name, call, scope, flatten(self._opened(result)))
            if self._forcing is not None:
                result = changed(result, self._forced(kinds.MODULE_OUT, name, call))
            return result

        return recorded

    def _look_at(self, result: Any, name: str, call: int, scope: str, given: Any) -> None:
        """Note a call that is not recorded whose result is not finite, and who made it so: it or its caller."""
        what = _not_finite(result)
        if what:
            self._strange.append((self.phase, scope if _not_finite(given) else name, name, call, what))

    def _repeats(self) -> bool:
        """Tell whether a call must be found again if gradient checkpointing repeats it."""
        in_first_run = self._flow is not None and not torch.is_grad_enabled()
        return in_first_run or (self._forcing is not None and self._flow is not None)

    def _computed_again(
        self, name: str, signature: inspect.Signature, forward: Callable, args: Tuple[Any, ...], kwargs: Dict[str, Any]
    ) -> Any:
        """Repeat a call for its gradients; these are recorded if the first run built no graph."""
        given = flatten(self._opened(named_arguments(signature.bind(*args, **kwargs), defaults=True)))
        first = self._first_calls.again(name, digests(given)) if self._modules and self._flow is not None else None
        if first is None:
            with self._inside(name):
                return forward(*args, **kwargs)
        if self._forcing is not None:
            args, kwargs = changed_call(signature, args, kwargs, self._forced(kinds.MODULE_IN, name, first.call))
        entered = None
        if not first.has_graph:
            bound = signature.bind(*args, **kwargs)
            entered = self._flow.enter(name, first.call, first.scope, flatten(self._opened(named_arguments(bound))))
        with self._inside(name):
            result = forward(*args, **kwargs)
        if entered is not None:
            self._flow.leave(entered, name, first.call, first.scope, flatten(self._opened(result)))
        if self._forcing is not None:
            result = changed(result, self._forced(kinds.MODULE_OUT, name, first.call))
        return result

    def coverage(self) -> dict:
        """Return what was called how often, for the comparison's accounting."""
        leaf, inner = (
            [dict(phase=phase, name=name, count=count) for (phase, name), count in sorted(calls.items())]
            for calls in (self.calls, self._inner_calls)
        )
        never = sorted(set(self.leaf_modules) - self._executed)
        return dict(
            leaf_calls=leaf,
            inner_calls=inner,
            never_executed=never,
            classes=self.classes,
            cut_off=self._cut_off,
            not_finite=self._strange,
            **(dict(parameters=self._parameters) if self._root else {}),
            **({} if self._forcing is None else dict(forced=self._forcing.replaced)),
        )


def _not_finite(value: Any) -> str:
    """Return ``NaN`` or ``Inf`` if there is one among the floats of ``value``, else an empty string."""
    found = ""
    for _, tensor in flatten(value):
        if tensor.is_floating_point() and not torch.isfinite(tensor.detach()).all():
            if torch.isnan(tensor.detach()).any():
                return "NaN"
            found = "Inf"
    return found
