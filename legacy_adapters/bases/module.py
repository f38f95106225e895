"""Base of adapters of any ``torch.nn.Module``: named tensors in, tensors out, trained with an optimizer of torch's."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional

import torch

from legacy_adapters.adapter import Adapter, UnableError, left_open
from legacy_adapters.numerics.precision import as_stored
from legacy_adapters.training.steps import Training


class ModuleAdapter(Adapter):
    """Build and run a module that takes its inputs by name: ``model(**inputs)``.

    Attributes:
        max_norm: that gradients are clipped to before a step; None for no clipping.
    """

    max_norm: Optional[float] = None

    @left_open
    def optimizer(self, model: torch.nn.Module, options: Mapping[str, Any]) -> torch.optim.Optimizer:
        """Make the optimizer, which check train needs."""
        raise UnableError("{} has no method optimizer(model, options).".format(self.label))

    def scheduler(self, optimizer: torch.optim.Optimizer, options: Mapping[str, Any]) -> Any:
        """Make a scheduler of ``torch.optim.lr_scheduler`` that advances with each step; None for none."""
        return None

    def training(self, model: torch.nn.Module, options: Mapping[str, Any], epoch_length: Optional[int]) -> Training:
        """Train in single precision: backward, clip, step, clear the gradients, advance the scheduler."""
        optimizer = self.optimizer(model, options)
        return ModuleTraining(model, optimizer, self.scheduler(optimizer, options), self.max_norm)

    def can(self, name: str) -> bool:
        """Tell whether a method does something: a training needs an optimizer."""
        return super().can("optimizer" if name == "training" and type(self).training is ModuleAdapter.training else name)


class ModuleTraining(Training):
    """Train a module with an optimizer of torch's.

    Args:
        model: that is trained.
        optimizer: of its parameters.
        scheduler: that advances with each step, or None.
        max_norm: that gradients are clipped to, or None.
    """

    def __init__(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, max_norm: Optional[float]
    ) -> None:
        self.model, self.optimizer, self.scheduler, self.max_norm = model, optimizer, scheduler, max_norm
        self._clip: Callable = torch.nn.utils.clip_grad_norm_
        self._backward_done: Callable[[], None] = lambda: None

    def watch(self, backward_done: Callable[[], None], clip: Callable[[Callable], Callable]) -> None:
        self._backward_done = backward_done
        if self.max_norm is not None:
            self._clip = clip(self._clip)

    def update(self, total: torch.Tensor) -> None:
        total.backward()
        self._backward_done()
        if self.max_norm is not None:
            self._clip([p for p in self.model.parameters() if p.grad is not None], max_norm=self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def advance(self, epoch_ended: bool) -> None:
        if self.scheduler is not None:
            self.scheduler.step()

    def save(self, path: str, step: int) -> None:
        parts = dict(
            meta=dict(iter=step), state_dict=self.model.state_dict(), optimizer=self.optimizer.state_dict()
        )
        if self.scheduler is not None:
            parts["param_schedulers"] = [self.scheduler.state_dict()]
        torch.save(parts, path)

    def resume(self, path: str, step: int) -> None:
        with as_stored():
            parts = torch.load(path, map_location="cpu")
        if parts["meta"]["iter"] != step:
            raise ValueError("{} was written after step {}, expected {}".format(path, parts["meta"]["iter"], step))
        self.model.load_state_dict(parts["state_dict"])
        self.optimizer.load_state_dict(parts["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(parts["param_schedulers"][0])
