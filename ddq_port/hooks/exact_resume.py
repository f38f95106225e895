"""Resume a training bit for bit, also in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from ddq_port.registry import HOOKS

from . import checkpoint_files, histories, random_state
from .data_stream import BatchOrder, EndlessBatches, sampler_of, seeded_loader
from .errors import ResumeRefusedError

#: Where the state stands in a checkpoint.
KEY = "exact_resume"
_NEXT_STEP = "resume as it was, or start from its weights alone (load_from without resume)"


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Let a training that is killed and resumed take exactly the steps of one that runs through.

    On one machine and CPU the losses are then equal bit for bit, with any number of workers, which may change in
    between; on a GPU as far as its kernels are deterministic. Works with mmengine's ``EpochBasedTrainLoop`` and
    ``IterBasedTrainLoop``, on one rank or many. Every checkpoint gets the random states of all ranks, the place in the
    epoch, and gradients that wait to be accumulated; mmengine saves the rest. Batches before the place are skipped by
    their indices, no image is read. Validation leaves no trace in the random states.

    The data of a training with this hook are drawn from streams of their own (see
    :mod:`ddq_port.hooks.data_stream`): with it and without it a seed gives other augmentations, of the same kind.

    A checkpoint is written under another name and renamed when complete, and the newest complete one also stands as
    ``last_complete.pth`` in the work dir: a kill in the midst of saving leaves one to resume from. It holds plain
    values and tensors only, so that torch 2.6 and later load it, which refuse mmengine's own.

    Not restored: what transforms keep between images (mmdet's ``CachedMosaic``) and draws of generators other than
    Python's, numpy's and torch's global ones. A checkpoint saved without the hook is resumed as mmengine does it, with
    a warning.

    Raises:
        ResumeRefusedError: before the first step, if the checkpoint was saved with another world size, batch size,
            length of the data set, kind of loop, of samplers, of optimizer or precision, or with averaged weights that
            nothing takes up; or if the loop is not one of the two, or
            ``train_dataloader`` is not a config.
    """

    priority = "HIGHEST"

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None
        self._saving: dict[str, Any] | None = None
        self._outside_validation: dict[str, Any] | None = None
        self._to_restore: dict[str, Any] | None = None
        self._order: BatchOrder | None = None
        self._seeds: dict[str, int] = {}

    def before_run(self, runner: Runner) -> None:
        """Mend what a kill has left, before mmengine looks for the checkpoint to resume."""
        self._loaded = None
        if not runner._resume or runner._load_from is not None:
            return
        if is_main_process():
            done = checkpoint_files.repair(runner.work_dir)
            if done:
                runner.logger.warning(done)
        barrier()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the state until the training begins."""
        if runner._resume:
            _check_average(runner, checkpoint)
        self._loaded = checkpoint.get(KEY)
        if "message_hub" in checkpoint:
            checkpoint["message_hub"] = histories.with_objects(checkpoint["message_hub"])

    def before_train(self, runner: Runner) -> None:
        """Replace the loader by one that can begin anywhere, and put everything back to where it was."""
        loop, cfg = runner.train_loop, runner._train_dataloader
        if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)) or isinstance(cfg, DataLoader):
            raise ResumeRefusedError(
                "ExactResumeHook expects EpochBasedTrainLoop or IterBasedTrainLoop with a config of train_dataloader; "
                f"found {type(loop).__name__} with a {type(cfg).__name__}. Use those, or leave the hook out."
            )
        state = self._loaded if runner.iter > 0 else None
        mine = _of_this_rank(state, _setting(runner)) if state else None
        # without a state: seeds of this run, as mmengine gives them to its sampler and workers
        seed = getattr(sampler_of(loop.dataloader), "seed", None)
        self._seeds = mine["seeds"] if mine else dict(sampler=runner.seed if seed is None else seed, data=runner.seed)
        self._place(
            runner, seeded_loader(loop.dataloader, cfg, self._seeds["sampler"], self._seeds["data"], runner.rank)
        )
        if mine:
            self._order.begin(state["epoch"], state["position"])
            self._to_restore = mine["random"]
            _set_gradients(runner.model, mine["gradients"])
            self._warn_of_other_devices(runner, mine["random"])
        elif runner.iter > 0:
            runner.logger.warning(
                "The checkpoint was saved without ExactResumeHook: random states are new, and an epoch that was begun "
                "begins again."
            )
        runner.save_checkpoint = self._saver(runner, runner.save_checkpoint)

    def _place(self, runner: Runner, loader: DataLoader) -> None:
        """Give the loader to the loop."""
        loop = runner.train_loop
        self._order = loader.batch_sampler
        loop.dataloader = loader
        if isinstance(loop, IterBasedTrainLoop):
            # a checkpoint without a state says only how many batches there were in all
            self._order.begin(0, runner.iter)
            loop.dataloader_iterator = EndlessBatches(loader, self._order, calls=runner.iter)

    def _warn_of_other_devices(self, runner: Runner, saved: dict[str, Any]) -> None:
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if len(saved["cuda"]) != devices:
            runner.logger.warning(
                f"The checkpoint was saved with {len(saved['cuda'])} CUDA devices, now there are {devices}: losses "
                "will not be equal bit for bit."
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the place of the epoch; between two epochs, go on with the random states."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            if self._order.epoch != runner.epoch:
                self._order.begin(runner.epoch)
            if self._order.position > 0:
                # the loop counts from 0, loggers and other hooks want the place in the epoch
                loop.run_iter = _counting_from(self._order.position, loop.run_iter)
        if self._order.position == 0:
            self._restore()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Go on with the random states where they were after the last step."""
        self._restore()

    def _restore(self) -> None:
        if self._to_restore is not None:
            random_state.restore(self._to_restore)
            self._to_restore = None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the batch, before any checkpoint of this iteration is written."""
        self._order.position += 1

    def after_train_epoch(self, runner: Runner) -> None:
        """Set the place to the next epoch, before any checkpoint of this one is written."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            self._order.begin(runner.epoch + 1)
            loop.__dict__.pop("run_iter", None)

    def before_val(self, runner: Runner) -> None:
        """Remember the random states, which the training will go on with."""
        self._outside_validation = random_state.capture()

    def after_val(self, runner: Runner) -> None:
        """Restore the random states from before the validation."""
        if self._outside_validation is not None:
            random_state.restore(self._outside_validation)
            self._outside_validation = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the state of all ranks into the checkpoint, and nothing into any that torch refuses to load."""
        if self._saving is not None:
            checkpoint[KEY] = self._saving
        checkpoint["message_hub"] = histories.as_plain(checkpoint["message_hub"])

    def after_train(self, runner: Runner) -> None:
        """Leave the runner as it was."""
        runner.__dict__.pop("save_checkpoint", None)

    def _saver(self, runner: Runner, save: Callable[..., None]) -> Callable[..., None]:
        """Wrap ``Runner.save_checkpoint``, the one method of Runner that all ranks call for every checkpoint.

        ``before_save_checkpoint`` is called on the main rank only, too late to ask the others.
        """

        def save_checkpoint(
            out_dir: str,
            filename: str,
            file_client_args: dict | None = None,
            save_optimizer: bool = True,
            backend_args: dict | None = None,
            **kwargs: Any,
        ) -> None:
            self._saving = self._state(runner) if save_optimizer else None

            def write(name: str) -> None:
                save(out_dir, name, file_client_args, save_optimizer, backend_args=backend_args, **kwargs)

            if is_main_process() and file_client_args is None and checkpoint_files.is_local(out_dir, backend_args):
                path = checkpoint_files.write_atomically(out_dir, filename, write)
                if save_optimizer:
                    self._remember(runner, path)
            else:
                write(filename)
            self._saving = None

        return save_checkpoint

    def _remember(self, runner: Runner, path: Path) -> None:
        if not checkpoint_files.remember(path, runner.work_dir):
            runner.logger.warning(
                f"{path} cannot have a hard link in {runner.work_dir}: a kill while the next checkpoint is saved may "
                "leave none to resume from, if old ones are removed (max_keep_ckpts)."
            )

    def _state(self, runner: Runner) -> dict[str, Any]:
        """Return what is saved; called on all ranks."""
        mine = dict(
            random=self._outside_validation or random_state.capture(),
            seeds=self._seeds,
            gradients=_waiting_gradients(runner),
        )
        return dict(
            setting=_setting(runner),
            epoch=self._order.epoch,
            position=self._order.position,
            ranks=all_gather_object(mine),
        )


def _setting(runner: Runner) -> dict[str, Any]:
    """Return what decides which batch comes where, as a checkpoint records it."""
    loop = runner.train_loop
    batches = loop.dataloader.batch_sampler
    batches = batches.batches if isinstance(batches, BatchOrder) else batches
    return {
        "world size": runner.world_size,
        "batch size": batches.batch_size,
        "length of the data set": len(loop.dataloader.dataset),
        "loop": "iterations" if isinstance(loop, IterBasedTrainLoop) else "epochs",
        "sampler": type(batches.sampler).__name__,
        "batch sampler": type(batches).__name__,
        "shuffle": str(getattr(batches.sampler, "shuffle", None)),
        "optimizer wrapper": _wrapper(runner.optim_wrapper),
    }


def _wrapper(wrapper: Any) -> str:
    """Describe what decides how a gradient is made of batches, and in which precision."""
    if not isinstance(wrapper, OptimWrapper):
        return type(wrapper).__name__
    precision = getattr(wrapper, "cast_dtype", None)
    every = f", accumulative_counts {wrapper._accumulative_counts}"
    return f"{type(wrapper).__name__} of {type(wrapper.optimizer).__name__}{every}" + (
        f", {precision}" if precision else ""
    )


def _check_average(runner: Runner, checkpoint: dict) -> None:
    """Refuse a training with averaged weights that goes on without them: what it would go on from is the average."""
    held = "ema_state_dict" in checkpoint
    averages = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    if held and not averages:
        raise ResumeRefusedError(
            "The checkpoint was saved with EMAHook and its weights are the average; resume with EMAHook (--ema), or "
            "start from the average alone (load_from without resume)."
        )


def check_setting(runner: Runner, state: dict[str, Any]) -> None:
    """Compare what a checkpoint was saved with, as it stands under :data:`KEY`, with what is there now.

    Raises:
        ResumeRefusedError: naming what differs.
    """
    _of_this_rank(state, _setting(runner))


def _of_this_rank(state: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the part of this rank if the checkpoint's setting is that of now."""
    changed = [
        f"{name} {state['setting'][name]}, now {now[name]}" for name in now if state["setting"][name] != now[name]
    ]
    if changed:
        raise ResumeRefusedError(f"The checkpoint was saved with {'; '.join(changed)}: {_NEXT_STEP}.")
    return state["ranks"][torch.distributed.get_rank() if torch.distributed.is_initialized() else 0]


def _counting_from(start: int, run_iter: Callable[..., None]) -> Callable[..., None]:
    return lambda idx, data_batch: run_iter(start + idx, data_batch)


def _waiting_gradients(runner: Runner) -> dict[str, torch.Tensor]:
    """Return the gradients that wait for more of them before the optimizer steps (``accumulative_counts``)."""
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
        return {}
    return {name: p.grad.cpu() for name, p in _unwrapped(runner.model).named_parameters() if p.grad is not None}


def _set_gradients(model: nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    for name, param in _unwrapped(model).named_parameters():
        if name in gradients:
            param.grad = gradients[name].to(param.device)


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
