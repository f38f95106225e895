"""Record the gradients that flow backward over the borders of module calls.

``out_grad`` is the gradient of a module's output, ``in_grad`` what this call alone contributes to the gradient of its
input. Backward, a call's ``out_grad`` comes before what happens inside it, its ``in_grad`` after: the mirror image of
inputs and outputs. So the first difference tells whose backward is wrong, also where everything forward is equal.

A hook that other code puts on an output after the call changes what the call is given back: its ``out_grad`` is then
the gradient behind all hooks, so that the caller is told from the module. One that a call puts on its own input counts
as part of what it contributes.

The graph is only looked at, never changed: hooks on tensors give totals, hooks on the nodes that a call has made give
its share, and a hook before a node that a hooked tensor comes from gives what is left of a total. Hooks stay with a
tensor's value when it is overwritten in place later only from torch 2.0 on, and the order of nodes can be asked for
only from 2.1 on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Optional, Tuple

import torch

from .kinds import IN_GRAD, OUT_GRAD

#: A place where gradients add up: the node that made a tensor, and which of its outputs that is.
Border = Tuple[Any, int]
IN, OUT = IN_GRAD, OUT_GRAD


def supported() -> bool:
    """Tell whether this torch can say in which order nodes were made."""
    return hasattr(_new_node(), "_sequence_nr")


@dataclass
class Share:
    """One input or output of one call.

    Attributes:
        gradient: of an input, what the call has contributed so far.
        hooks: of an output, the hooks on the tensor when the call ended.
        hooked: of an input, that the call has put a hook on the tensor.
        passes: how many backward passes have recorded it: several where gradients of gradients are computed.
    """

    kind: str
    name: str
    call: int
    slot: str
    scope: str
    gradient: Optional[torch.Tensor] = None
    hooks: FrozenSet[int] = frozenset()
    hooked: bool = False
    passes: int = 0

    @property
    def slot_of_pass(self) -> str:
        """The slot under which the next backward pass is recorded."""
        return "{} (backward pass {})".format(self.slot, self.passes + 1).lstrip() if self.passes else self.slot


#: Records the gradient of an input or output. The last argument says that what a call contributed to it differs from
#: the forced run already. Gives the gradient to go on with where that is not this one, else None.
Add = Callable[[Share, torch.Tensor, bool], Optional[torch.Tensor]]


@dataclass
class _Shares:
    """Who takes and who gives the tensor at one border, in forward order; and all hooks on it, the recorder's too."""

    hooks: Dict[int, Callable] = field(default_factory=dict)
    takers: List[Share] = field(default_factory=list)
    givers: List[Share] = field(default_factory=list)

    def is_changed(self, share: Share) -> bool:
        """Tell whether code outside of the call that gave the output has put a hook on it."""
        return not share.hooks.issuperset(self.hooks)


@dataclass(frozen=True)
class Entered:
    """A call that has begun.

    Attributes:
        started: sequence number; nodes of the call have this or a larger one.
        inputs: its inputs that need a gradient.
        hooks: how many hooks were on each of them.
    """

    started: int
    inputs: Dict[Border, List[Share]]
    hooks: Dict[Border, int]


class GradientFlow:
    """Follow gradients over the borders of calls.

    Args:
        add: records a gradient and may replace it.
        is_missing: tells whether a call that contributed nothing does contribute in the forced run.
    """

    def __init__(self, add: Add, is_missing: Callable[[Share], bool]) -> None:
        self._add, self._is_missing = add, is_missing
        self._borders: Dict[Border, _Shares] = {}
        #: Floating-point inputs and outputs that need no gradient, in the order in which they came up.
        self.cut_off: List[Share] = []

    def enter(self, name: str, call: int, scope: str, inputs: Iterator[Tuple[str, torch.Tensor]]) -> Optional[Entered]:
        """Note a call's ``inputs``, by slot, before it begins; None if no gradients are computed."""
        if not torch.is_grad_enabled():
            return None
        entered = Entered(_new_node()._sequence_nr(), {}, {})
        for slot, tensor in inputs:
            share = Share(IN, name, call, slot, scope)
            if tensor.requires_grad:
                border = _border_of(tensor)
                shares = self._shares(border, tensor)
                shares.takers.append(share)
                entered.inputs.setdefault(border, []).append(share)
                entered.hooks[border] = len(shares.hooks)
            elif tensor.is_floating_point():
                self.cut_off.append(share)
        return entered

    def leave(
        self, entered: Entered, name: str, call: int, scope: str, outputs: Iterator[Tuple[str, torch.Tensor]]
    ) -> None:
        """Note the call's ``outputs``, by slot, and watch the nodes between them and its inputs."""
        found = []
        for border, taken in entered.inputs.items():
            for share in taken:
                share.hooked = len(self._borders[border].hooks) > entered.hooks[border]
        for slot, tensor in outputs:
            share = Share(OUT, name, call, slot, scope)
            if tensor.requires_grad:
                border = _border_of(tensor)
                shares = self._shares(border, tensor)
                share.hooks = frozenset(shares.hooks)
                shares.givers.append(share)
                found.append(border[0])
            elif tensor.is_floating_point():
                self.cut_off.append(share)
        if entered.inputs:
            _watch(found, entered)

    def clear(self) -> None:
        """Let go of the graph and of what was cut off from it."""
        self._borders.clear()
        self.cut_off.clear()

    def _shares(self, border: Border, tensor: torch.Tensor) -> _Shares:
        if border not in self._borders:
            shares = self._borders[border] = _Shares()
            handle = tensor.register_hook(lambda gradient: self._arrived(shares, gradient))
            shares.hooks = tensor._backward_hooks
            # hooks run in the order in which they were put in, and the total is the gradient before the first of them
            for other in [number for number in shares.hooks if number != handle.id]:
                shares.hooks[other] = shares.hooks.pop(other)
        return self._borders[border]

    def _arrived(self, shares: _Shares, gradient: torch.Tensor) -> Optional[torch.Tensor]:
        """Record what came in from all takers, later calls first; then what all givers get, outer modules first."""
        explained, replaced = False, None
        hooked = [share for share in reversed(shares.takers) if share.hooked and share.gradient is not None]
        for share in reversed(shares.takers):
            if share.gradient is None:
                explained |= self._is_missing(share)
            elif not share.hooked:
                other = self._add(share, share.gradient, False)
                if other is not None:
                    explained = True
                    # all that arrived came from this call
                    replaced = other if torch.equal(share.gradient, gradient) else replaced
                share.gradient = None
        changed = [share for share in reversed(shares.givers) if shares.is_changed(share)]
        for share in reversed(shares.givers):
            if not shares.is_changed(share):
                other = self._add(share, gradient, explained)
                replaced = other if other is not None else replaced
        if hooked or changed:
            total = gradient if replaced is None else replaced
            self._before_node(shares, lambda left: self._behind_hooks(total, left, hooked, changed, explained))
        return replaced

    def _behind_hooks(
        self, total: torch.Tensor, left: torch.Tensor, hooked: List[Share], changed: List[Share], explained: bool
    ) -> Optional[torch.Tensor]:
        """Record what depends on what hooks have ``left`` of a ``total``; return what to go on with, None for that."""
        replaced = None
        for share in hooked:
            explained |= self._add(share, share.gradient + (left - total), False) is not None
            share.gradient = None
        for share in changed:
            other = self._add(share, left, explained)
            replaced = other if other is not None else replaced
        return replaced

    def _before_node(self, shares: _Shares, change: Callable[[torch.Tensor], Optional[torch.Tensor]]) -> None:
        """Call ``change`` with the gradient at a border when all hooks on the tensor have run."""
        # to hold the node in the tensor's own hook would keep the graph alive for ever
        node, index = next(border for border, found in self._borders.items() if found is shares)

        def before(gradients: Tuple[Optional[torch.Tensor], ...]) -> Optional[Tuple[Optional[torch.Tensor], ...]]:
            handle.remove()
            other = None if gradients[index] is None else change(gradients[index])
            return None if other is None else (*gradients[:index], other, *gradients[index + 1 :])

        handle = node.register_prehook(before)


def _watch(ends: List[Any], entered: Entered) -> None:
    """Hook every node of the call whose gradient goes straight to one of its inputs."""
    seen = set()
    stack = list(ends)
    while stack:
        node = stack.pop()
        # nodes that accumulate into parameters have the largest number, and nothing behind them
        if node in seen or node._sequence_nr() < entered.started:
            continue
        seen.add(node)
        targets = [(index, entered.inputs[edge]) for index, edge in enumerate(node.next_functions)
                   if edge in entered.inputs]  # fmt: skip
        if targets:
            node.register_hook(_adding(targets))
        stack += [edge[0] for edge in node.next_functions if edge[0] is not None]


def _adding(targets: List[Tuple[int, List[Share]]]) -> Callable:
    def hook(gradients: Tuple[Optional[torch.Tensor], ...], _: Any) -> None:
        for index, shares in targets:
            gradient = gradients[index]
            if gradient is not None:
                for share in shares:
                    share.gradient = gradient if share.gradient is None else share.gradient + gradient

    return hook


def _border_of(tensor: torch.Tensor) -> Border:
    if tensor.grad_fn is not None:
        return tensor.grad_fn, tensor.output_nr
    # a leaf: its gradient adds up in a node that only another node leads to
    return tensor.view_as(tensor).grad_fn.next_functions[0]


def _new_node() -> Any:
    return torch.ones((), requires_grad=True).view(()).grad_fn
