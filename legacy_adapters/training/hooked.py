"""Train as code bases on mmcv 1.x do: a runner's hooks set learning rates, propagate back, clip and step.

Imports mmcv 1.x of the running process.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch

from ..origin import PlainError
from .steps import Training, kind_of

#: What mmengine calls the hooks of mmcv 1.x that do the same; the number of steps whose gradients add up is told beside.
_WRAPPERS = {"OptimizerHook": "OptimWrapper", "GradientCumulativeOptimizerHook": "OptimWrapper"}


class HookTraining(Training):
    """Train as a runner of mmcv 1.x does: hooks set learning rates before a step, and clip and step behind the losses.

    Args:
        runner: with the hooks that the config asks for; runs nothing by itself.
        hook: the one of ``runner`` that propagates back, clips and steps.
    """

    def __init__(self, runner: Any, hook: Any) -> None:
        self.runner, self.hook = runner, hook
        self.optimizer, self.by_epoch = runner.optimizer, runner.max_epochs is not None
        self._backward_done: Callable[[], None] = lambda: None
        self._clip: Callable[[Callable], Callable] = lambda clip: clip
        self._taken: List[Dict[str, Any]] = []

    def watch(self, backward_done: Callable[[], None], clip: Callable[[Callable], Callable]) -> None:
        self._backward_done, self._clip = backward_done, clip

    def wrapper_options(self) -> Dict[str, Any]:
        kind = kind_of(self.hook)
        counts = getattr(self.hook, "cumulative_iters", 1)
        return {"class": _WRAPPERS.get(kind, kind), "accumulative_counts": counts}

    def update(self, total: torch.Tensor) -> None:
        clipping, backward, backward_done = torch.nn.utils.clip_grad, torch.Tensor.backward, self._backward_done

        def watched(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            backward(tensor, *args, **kwargs)
            backward_done()

        self.runner.outputs = dict(loss=total, num_samples=1)
        clip = self._clip(clipping.clip_grad_norm_)
        with _replaced(torch.Tensor, "backward", watched), _replaced(clipping, "clip_grad_norm_", clip):
            self.runner.call_hook("after_train_iter")
        self._taken = self._settings()
        self.runner.log_buffer.clear()

    def _settings(self) -> List[Dict[str, Any]]:
        return [{name: value for name, value in group.items() if name != "params"} for group in self.optimizer.param_groups]

    def _set(self, settings: List[Dict[str, Any]]) -> None:
        for group, own in zip(self.optimizer.param_groups, settings):
            group.update(own)

    def save(self, path: str, step: int) -> None:
        """Write what the runner does at the end of an epoch; ``epoch`` in it is how many are complete.

        Hooks have set the rates of the next step already; a runner's file has those of the last one.
        """
        runner, (folder, name) = self.runner, os.path.split(path)
        runner._epoch -= 1  # at the end of an epoch a runner has not counted it yet, and writes one more
        following = self._settings()
        self._set(self._taken)
        try:
            runner.save_checkpoint(folder, filename_tmpl=name, create_symlink=False)
        finally:
            self._set(following)
            runner._epoch += 1

    def resume(self, path: str, step: int) -> None:
        """Load what the runner does, and let its hooks set what the next step asks for.

        Raises:
            ValueError: if it is a checkpoint of another moment, or lacks weights.
        """
        runner = self.runner
        parts = torch.load(path, map_location="cpu", weights_only=True)
        missing = [name for name in runner.model.state_dict() if name not in parts["state_dict"]]
        if missing:
            raise ValueError("{} lacks {} of the model's keys, first {}".format(path, len(missing), missing[0]))
        if parts["meta"]["iter"] != step:
            raise ValueError("{} was written after step {}, expected {}".format(path, parts["meta"]["iter"], step))
        runner.resume(path, map_location="cpu")
        self.begin()

    def begin(self) -> None:
        """Let the hooks set what the first step, or that behind a checkpoint, asks for."""
        for moment in ("before_run", *(("before_train_epoch",) if self.by_epoch else ()), "before_train_iter"):
            self.runner.call_hook(moment)

    def advance(self, epoch_ended: bool) -> None:
        runner = self.runner
        runner._iter += 1
        runner._inner_iter = 0 if epoch_ended else runner._inner_iter + 1
        runner._epoch += epoch_ended
        if epoch_ended and self.by_epoch:
            runner.call_hook("before_train_epoch")
        runner.call_hook("before_train_iter")


def training(model: Any, config: Any, epoch_length: Optional[int]) -> HookTraining:
    """Build optimizer, clipping and schedule as the running process's mmcv 1.x makes them of a config.

    Args:
        model: before its first run.
        config: a config with ``optimizer``; with ``optimizer_config``, ``lr_config`` and ``momentum_config``, if any.
        epoch_length: steps of an epoch; None if no epoch ends.

    Raises:
        PlainError: if it cannot train, or trains in half precision, which mmcv 1.x does on GPUs only.
    """
    from mmcv.runner import OptimizerHook, build_optimizer, build_runner

    if config.get("optimizer") is None:
        raise PlainError("The config has no `optimizer`, which a training needs; name a config that trains.")
    if config.get("fp16") is not None:
        raise PlainError("The config has `fp16`, which mmcv 1.x trains with on a GPU only; take `fp16` out of it.")
    given = config.get("runner") or dict(type="EpochBasedRunner", max_epochs=config.get("total_epochs", 12))
    quiet = logging.getLogger("legacy training")
    quiet.setLevel(logging.ERROR)
    own = dict(model=model, optimizer=build_optimizer(model, config.optimizer), logger=quiet)
    runner = build_runner(dict(given), default_args=own)
    runner.data_loader = range(epoch_length or 0)  # hooks ask how long it is
    if epoch_length is not None and runner.max_iters is None:
        runner._max_iters = runner.max_epochs * epoch_length
    runner.register_optimizer_hook(dict(config.get("optimizer_config") or {}))
    by_epoch = runner.max_epochs is not None  # else the runner makes its schedules count steps
    for section, register in (("lr_config", runner.register_lr_hook), ("momentum_config", runner.register_momentum_hook)):
        if config.get(section) is not None:
            register(dict({} if by_epoch else dict(by_epoch=False), **config[section]))
    hook = [hook for hook in runner.hooks if isinstance(hook, OptimizerHook)][0]
    made = HookTraining(runner, hook)
    made.begin()
    return made


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put ``value`` in the place of an attribute within."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)
