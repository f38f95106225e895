"""Notice that a script goes backward, and record the gradients that are there afterwards.

``Tensor.backward`` and everything that calls it (a scaler of gradients, an engine) goes through
``torch.autograd.backward``, ``torch.autograd.grad`` through itself; both are watched in a block and put back after it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Tuple

import torch

from ..recording import kinds
from ..recording.recomputing import in_backward
from ..recording.recorder import Recorder
from ..recording.scripts import BACKWARD_LOSS
from ..recording.trace_writer import content_digest
from .opened import opened


class Backward:
    """Record what every backward pass of a block leaves.

    Args:
        recorder: gets the records.
        model: whose parameters are looked at.

    Attributes:
        passes: how many there were.
    """

    def __init__(self, recorder: Recorder, model: torch.nn.Module) -> None:
        self.passes = 0
        self._recorder = recorder
        self._names: Dict[int, str] = {id(param): name for name, param in model.named_parameters()}
        self._parameters = sorted(model.named_parameters(), key=lambda named: named[0])
        self._running = False

    def present(self) -> Dict[str, str]:
        """Return a digest of every gradient that is there, by its parameter's name."""
        found = ((name, param.grad) for name, param in self._parameters if param.grad is not None)
        return {name: content_digest(opened(gradient)) for name, gradient in found}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch both functions within."""
        backward, grad = torch.autograd.backward, torch.autograd.grad
        torch.autograd.backward = self._seen(backward, self._after_backward)
        torch.autograd.grad = self._seen(grad, self._after_grad)
        try:
            yield
        finally:
            torch.autograd.backward, torch.autograd.grad = backward, grad

    def _seen(self, function: Callable, after: Callable) -> Callable:
        def seen(*args: Any, **kwargs: Any) -> Any:
            if self._running or in_backward() or not self._recorder.phase:
                return function(*args, **kwargs)
            self._running = True
            try:
                roots = args[0] if args else kwargs.get("tensors", kwargs.get("outputs"))
                self._recorder.add(kinds.LOSS, BACKWARD_LOSS, self.passes, roots)
                result = function(*args, **kwargs)
                after(result, args, kwargs)
                self.passes += 1
            finally:
                self._running = False
            return result

        return seen

    def _after_backward(self, result: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        for name, param in self._parameters:
            if param.grad is not None:
                self._recorder.add(kinds.GRAD, name, self.passes, param.grad)

    def _after_grad(self, result: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        asked = args[1] if len(args) > 1 else kwargs["inputs"]
        for tensor, gradient in zip([asked] if isinstance(asked, torch.Tensor) else asked, result):
            name = self._names.get(id(tensor))
            if name is not None and gradient is not None:
                self._recorder.add(kinds.GRAD, name, self.passes, gradient)
