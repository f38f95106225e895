"""What a person sees of a training or an evaluation: one line that is kept up to date, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from legacy_adapters.ground.console import message, status, updates_lines

_BETWEEN_UPDATES = 0.5  # seconds, of a line that is kept up to date
_BETWEEN_LINES = (15.0, 300.0)  # seconds, of lines one below the other: at the beginning, and at most
_GROWTH = 20  # later on, lines are a twentieth of the time so far apart
_AP = "coco/bbox_mAP"


class ProgressHook(Hook):
    """Say how far a training or an evaluation is, its loss and AP, and how long it will take.

    The loss is fetched from the device for the lines that are written, and for no other step.
    """

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self._began = self._told = 0.0
        self._first = 0  # iterations before this run
        self._score = ""

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._start()
        self._first = runner.iter

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Write a line after the first step, after the last, and in between if the last line is some time ago."""
        step, steps = runner.iter + 1, runner.max_iters
        done = step - self._first
        if not self._due(done == 1 or step == steps):
            return
        left = (time.monotonic() - self._began) / done * (steps - step)
        loss = f"  loss {float(torch.as_tensor(outputs['loss']).detach()):.3f}" if outputs and "loss" in outputs else ""
        self._show(f"{_place(runner)}step {step} of {steps}{loss}{self._score}  {clock(left)} left", step == steps)

    def before_val(self, runner: Runner) -> None:
        """Let a line that is kept up to date say what is going on."""
        self._told = time.monotonic()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Say how many images are validated."""
        if self._due(False):
            self._show(f"validating: {_images(runner.val_dataloader, batch_idx)}", False)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say the AP of a validation, or the first of its metrics."""
        shown = {name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)}
        if not shown:
            return
        name = _AP if _AP in shown else next(iter(shown))
        self._score = f"  {'AP' if name == _AP else name} {shown[name]:.3f}"
        self._show(f"validated after step {runner.iter}{self._score}", True)

    def before_test(self, runner: Runner) -> None:
        """Start the clock."""
        self._start()

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Say how many images are evaluated."""
        batches = len(runner.test_dataloader)
        done = batch_idx + 1
        if self._due(done == batches):
            left = (time.monotonic() - self._began) / done * (batches - done)
            images = _images(runner.test_dataloader, batch_idx)
            self._show(f"evaluating: {images}  {clock(left)} left", done == batches)

    def _start(self) -> None:
        self._began = self._told = time.monotonic()

    def _due(self, always: bool) -> bool:
        now = time.monotonic()
        least, most = _BETWEEN_LINES
        pause = _BETWEEN_UPDATES if updates_lines() else min(most, max(least, (now - self._began) / _GROWTH))
        if not always and now - self._told < pause:
            return False
        self._told = now
        return True

    def _show(self, text: str, stays: bool) -> None:
        if updates_lines() and not stays:
            status(text)
        else:
            message(text)


def _place(runner: Runner) -> str:
    epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    return f"epoch {runner.epoch + 1} of {runner.max_epochs}  " if epochs else ""


def _images(loader: Any, batch_idx: int) -> str:
    total = len(loader.dataset)
    # of several processes each has its share, in step with the others
    return f"{min(total, round(total * (batch_idx + 1) / len(loader)))} of {total} images"


def clock(seconds: float) -> str:
    """Write a duration as `h:mm:ss`, or `m:ss` if it is below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
