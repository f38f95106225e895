"""A hook for mmengine's Runner, of either side and any version: it sets all draws and logs every step."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from . import draws, steplog


@HOOKS.register_module()
class FollowHook(Hook):
    """Make data, augmentation and draws of a training functions of seed and step, and write what each step did.

    The order of the data is that of the side's own sampler. A training that is resumed goes on with the draws it would
    have had. One process only.

    Args:
        seed: of augmentation and of the model's draws.
        file: to write the steps to, see :mod:`.steplog`.
        start_to: file to write the state dict to before the first step; None for none.
        norm_order: parameters in the order in which their norms are summed for clipping; others come behind them.
            Empty for the optimizer's order.
    """

    priority = "NORMAL"  # behind hooks that set the data, before those that advance schedules or save

    def __init__(
        self,
        seed: int,
        file: str,
        start_to: Optional[str] = None,
        norm_order: Sequence[str] = (),
    ) -> None:
        self.seed, self.file, self.start_to, self.norm_order = seed, file, start_to, list(norm_order)
        self.metrics = {}  # type: Dict[str, float]
        self._log = None  # type: Optional[steplog.StepLog]
        self._loader = self._others = None  # type: Any
        self._began = {}  # type: Dict[str, Any]

    def before_run(self, runner: Any) -> None:
        """Keep the loader that mmengine built; other hooks may replace it."""
        self._loader = getattr(runner.train_loop, "dataloader", None) if runner.train_loop is not None else None

    def before_train(self, runner: Any) -> None:
        """Set the data, and write the weights that the training begins with."""
        self._log = steplog.StepLog(self.file, runner.iter)
        loop = runner.train_loop
        if hasattr(loop, "dataloader_iterator"):
            loop.dataloader_iterator = draws.Stream(self._loader, self.seed, lambda: runner.iter)
        if self.norm_order:
            runner.optim_wrapper.clip_func = _in_order(runner.optim_wrapper.clip_func, self._parameters(runner))
        if self.start_to and runner.iter == 0:
            temporary = "{}.{}.tmp".format(self.start_to, os.getpid())
            torch.save(dict(state_dict=_unwrapped(runner.model).state_dict()), temporary)
            os.replace(temporary, self.start_to)

    def before_train_epoch(self, runner: Any) -> None:
        """Set the data of a loop over epochs."""
        loop, length = runner.train_loop, len(self._loader)
        if not hasattr(loop, "dataloader_iterator"):
            self._others = loop.dataloader
            loop.dataloader = draws.placed(self._loader, self.seed, lambda: divmod(runner.iter, length))

    def after_train_epoch(self, runner: Any) -> None:
        """Put the loader of other hooks back, which they look at when they save."""
        if self._others is not None:
            runner.train_loop.dataloader = self._others
            self._others = None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the draws of the step, and note what it begins with."""
        draws.seed_all(self.seed, runner.iter, draws.MODEL)
        samples = data_batch["data_samples"]
        objects = [_tensor(value) for s in samples for value in (s.gt_instances.bboxes, s.gt_instances.labels)]
        rates = [group["lr"] for group in runner.optim_wrapper.optimizer.param_groups]
        self._began = dict(
            step=runner.iter + 1,
            images=tuple(int(sample.img_id) for sample in samples),
            pixels=steplog.digest(list(data_batch["inputs"])),
            objects=steplog.digest(objects),
            rates=steplog.exact_all(rates),
            before=steplog.digest_of_weights(_unwrapped(runner.model)),
        )

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write the step."""
        terms = {name: steplog.exact(value) for name, value in outputs.items() if name != "loss"}
        norm = runner.message_hub.log_scalars.get("train/grad_norm")
        self._log.add(
            steplog.Step(
                terms=terms,
                total=steplog.exact(outputs["loss"]) if "loss" in outputs else None,
                norm=None if norm is None else steplog.exact(norm.current()),
                after=steplog.digest_of_weights(_unwrapped(runner.model)),
                **self._began,
            )
        )

    def after_val_epoch(self, runner: Any, metrics: Optional[Dict[str, float]] = None) -> None:
        """Keep what the validation gave."""
        self.metrics = dict(metrics or {})

    def after_train(self, runner: Any) -> None:
        """Close the file."""
        self._log.close()

    def _parameters(self, runner: Any) -> List[Any]:
        parameters = dict(_unwrapped(runner.model).named_parameters())
        return [parameters[name] for name in self.norm_order if name in parameters]


def _in_order(clip: Callable, first: Sequence[Any]) -> Callable:
    """Let a function clip parameters in another order."""
    place = {id(parameter): i for i, parameter in enumerate(first)}

    def clipped(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        return clip(sorted(parameters, key=lambda p: place.get(id(p), len(place))), *args, **kwargs)

    return clipped


def _unwrapped(model: Any) -> Any:
    return model.module if hasattr(model, "module") else model


def _tensor(boxes: Any) -> Any:
    return getattr(boxes, "tensor", boxes)
