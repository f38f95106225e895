"""Whole trainings and tests by the mmengine of the running process, of a code base in the form of MMDetection 3.x."""

from __future__ import annotations

import os
import pickle
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

from legacy_adapters import shims
from legacy_adapters.origin import UnusableInputError

from .given import classes_of, merge_settings
from .own_files import note
from .request import STEPS, Data, Outcome, WholeTest, WholeTraining

_LOADERS = ("val_dataloader", "test_dataloader")
_OF_TRAINING = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler")
_EVALUATORS = ("val_evaluator", "test_evaluator")


def train(config: Any, request: WholeTraining) -> Outcome:
    """Train as a config says.

    Args:
        config: mmengine's, of a whole training; it is changed.
        request: what to train.
    """
    from mmengine.runner import Runner

    _use(config, request, classes_of(request.data[0]))
    use_data(config.train_dataloader, request.data, classes_of(request.data[0]))
    config.randomness = dict(seed=request.seed, deterministic=True)
    if request.stop_at is not None:
        config.train_cfg.max_iters = request.stop_at
    config.resume, config.load_from = request.resume is not None, request.resume
    steps = os.path.join(request.work_dir, STEPS)
    runner = Runner.from_cfg(config)
    runner.save_checkpoint = _noted(runner.save_checkpoint, request.work_dir)
    hook = _follow(runner, dict(seed=request.seed, file=steps, start_to=request.start_to))
    with _loading(request.resume, request.trusted):
        runner.train()
    last = os.path.join(request.work_dir, "iter_{}.pth".format(runner.iter))
    return Outcome({name: float(value) for name, value in hook.metrics.items()}, runner.iter, last)


def test(config: Any, request: WholeTest) -> Outcome:
    """Test a checkpoint as a config says; arguments as of :func:`train`."""
    from mmengine.runner import Runner

    _use(config, request, classes_of(request.val_data[0]))
    config.load_from = request.checkpoint
    for name in _OF_TRAINING:  # some versions build the loop of the training, and so its data, for a test as well
        config[name] = None
    runner = Runner.from_cfg(config)
    with _loading(request.checkpoint, request.trusted):
        metrics = runner.test()
    return Outcome({name: float(value) for name, value in metrics.items()}, 0, request.checkpoint)


def use_data(loader: Any, data: Data, classes: Sequence[str]) -> None:
    """Point a data loader of a config at annotated images."""
    loader.dataset.update(
        data_root="",
        ann_file=data[0],
        data_prefix=dict(img=os.path.join(data[1], "")),
        metainfo=dict(classes=tuple(classes)),
    )


def _use(config: Any, request: Any, classes: Sequence[str]) -> None:
    """Put settings, work dir and validation data into a config."""
    from mmengine.config import DictAction

    merge_settings(config, request.settings, DictAction)
    config.work_dir = request.work_dir
    for name in _LOADERS:
        use_data(config[name], request.val_data, classes)
    for name in _EVALUATORS:
        config[name].ann_file = request.val_data[0]


def _follow(runner: Any, options: Mapping[str, Any]) -> Any:
    from .following import FollowHook

    hook = FollowHook(**options)
    runner.register_hook(hook)
    return hook


def _noted(save: Callable[..., None], work_dir: str) -> Callable[..., None]:
    """Let ``Runner.save_checkpoint`` note what it has written as this tool's own."""

    def save_checkpoint(out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        save(out_dir, filename, *args, **kwargs)
        note(work_dir, os.path.join(out_dir, filename))

    return save_checkpoint


@contextmanager
def _loading(path: Optional[str], trusted: bool) -> Iterator[None]:
    """Load a checkpoint within, one that holds objects only if it is trusted."""
    if path is not None and trusted:
        with shims.pickles_loaded(path):
            yield
        return
    try:
        yield
    except pickle.UnpicklingError as error:
        raise UnusableInputError(
            "{} holds objects that loading it would execute; pass --trust-checkpoint if you trust it.".format(path)
        ) from error
