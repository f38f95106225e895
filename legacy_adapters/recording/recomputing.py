"""Gradient checkpointing: what is computed again in the backward pass is recognised, and not recorded twice.

``torch.utils.checkpoint`` throws activations away and runs the same code once more when gradients need them. Those
calls and draws are not of the model's; only the gradients that flow through them are, where the first run built no
graph (``use_reentrant=True``).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Tuple

import torch

from .trace_writer import DTYPES, content_digest


def in_backward() -> bool:
    """Tell whether a backward pass is running in this thread; always False before torch 2.0, which cannot tell."""
    task = getattr(torch._C, "_current_graph_task_id", None)
    return task is not None and task() != -1


def digests(tensors: Iterable[Tuple[str, torch.Tensor]]) -> Tuple[str, ...]:
    """Return what tells calls of one module apart: the contents of all that they are given."""
    return tuple(
        content_digest(tensor) for _, tensor in tensors if tensor.dtype in DTYPES and tensor.layout == torch.strided
    )


@dataclass(frozen=True)
class FirstCall:
    """A module call as it was made at first.

    Attributes:
        call: its number.
        scope: its caller.
        has_graph: whether it was made with gradients enabled.
        given: digests of what it was given.
    """

    call: int
    scope: str
    has_graph: bool
    given: Tuple[str, ...]


class FirstCalls:
    """The calls of a phase, to be found again when they are repeated; the last one first, as backward goes."""

    def __init__(self) -> None:
        self._calls: Dict[str, List[FirstCall]] = defaultdict(list)

    def add(self, name: str, first: FirstCall) -> None:
        """Note a call of the module ``name``."""
        self._calls[name].append(first)

    def again(self, name: str, given: Tuple[str, ...]) -> Optional[FirstCall]:
        """Return the last call of ``name`` with such arguments that was not asked for yet, None if there is none."""
        calls = self._calls[name]
        for index in range(len(calls) - 1, -1, -1):
            if calls[index].given == given:
                return calls.pop(index)
        return None

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()
