"""What adapters of MMDetection 2.x code bases have in common; imports mmdet and mmcv 1.x of the running process."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy
import torch

from . import shims, standin
from .bases.detection import DetectionAdapter
from .inputs import UNSCALED, Batch
from .origin import PlainError
from .training.steps import Training, kind_of


class MMDet2Adapter(DetectionAdapter):
    """Build and run a detector of a code base in the form of MMDetection 2.x.

    ``options`` has ``config``, the path of a config or its name among those of the code base, and ``repo``, a folder
    that holds the code base, unless it is installed.
    """

    methods = ("extract_feat",)

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of the config."""
        return config_path(options["config"], options.get("repo"))

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the detector of the config."""
        prepare(options.get("repo"), device)
        from mmdet.models import build_detector

        config = load_config(self.config(options))
        config.model.pop("pretrained", None)
        return build_detector(config.model, train_cfg=config.get("train_cfg"), test_cfg=config.get("test_cfg"))

    def predict(self, model: Any, batch: Batch) -> List[Dict[str, torch.Tensor]]:
        """Run inference; return bboxes [n, 4] xyxy in pixels, scores [n] and labels [n] of each image, class by class."""
        return detections(model.simple_test(batch.images, metas(batch), rescale=True))

    def variants(self, model: Any) -> Dict[str, Callable[[Batch], List[Any]]]:
        """Return inference with boxes of the resized images."""

        def unscaled(batch: Batch) -> List[Dict[str, torch.Tensor]]:
            return detections(model.simple_test(batch.images, metas(batch), rescale=False))

        return {UNSCALED: unscaled}

    def losses(self, model: Any, batch: Batch) -> Tuple[Dict[str, Any], torch.Tensor]:
        """Return the loss terms as the model names them and their sum."""
        terms = model.forward_train(batch.images, metas(batch), gt_bboxes=batch.gt_bboxes, gt_labels=batch.gt_labels)
        return terms, model._parse_losses(terms)[0]

    def training(self, model: torch.nn.Module, options: Mapping[str, Any], epoch_length: Optional[int]) -> "HookTraining":
        """Make optimizer, clipping and schedule of the config, with the mmcv of the running process."""
        return training(model, load_config(self.config(options)), epoch_length)

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Tell which code ran."""
        import mmcv
        import mmdet

        return dict(
            code_base="mmdet " + mmdet.__version__,
            modules={m.__name__: dict(file=str(m.__file__), version=str(m.__version__)) for m in (mmdet, mmcv)},
        )


def prepare(repo: Optional[str], device: str) -> None:
    """Make the code base importable in this interpreter: its folder, what it misses, the operators.

    Raises:
        PlainError: if its mmcv is not of 1.x.
    """
    if repo is not None and repo not in sys.path:
        sys.path.insert(0, repo)
    shims.install(device)
    standin.install()
    import mmcv

    if not mmcv.__version__.startswith("1."):
        raise PlainError(
            "MMDetection 2.x needs mmcv 1.x, found mmcv {} at {}; install mmcv 1.x beside it.".format(
                mmcv.__version__, os.path.dirname(mmcv.__file__)
            )
        )
    import mmdet.models  # noqa: F401  (registers its modules)


def config_path(config: str, repo: Optional[str]) -> str:
    """Return the path of a config: a file, or a name among those of the code base.

    Raises:
        PlainError: if there is none.
    """
    import mmdet

    package = os.path.dirname(os.path.abspath(mmdet.__file__))
    folders = ["", os.path.join(package, ".mim", "configs"), os.path.join(os.path.dirname(package), "configs")]
    for folder in folders:
        path = os.path.join(folder, config)
        if os.path.isfile(path):
            return path
    raise PlainError("There is no config {}; looked for it in {}.".format(config, ", ".join(folders[1:])))


def load_config(path: str) -> Any:
    """Read a config with the mmcv of the running process."""
    from mmcv import Config

    return Config.fromfile(path)


def metas(batch: Batch) -> List[Dict[str, Any]]:
    """Return what 2.x tells of each image of a batch: sizes of 3 numbers and scale factors of 4."""
    whole = tuple(batch.images.shape[-2:])
    described = zip(batch.image_sizes, batch.pad_shapes, batch.scale_factors)
    return [
        dict(
            img_shape=(*size, 3),
            ori_shape=(round(size[0] / scale[1]), round(size[1] / scale[0]), 3),
            pad_shape=(*padded, 3),
            batch_input_shape=whole,
            scale_factor=numpy.array([*scale, *scale], dtype=numpy.float32),
            flip=False,
            flip_direction=None,
            filename="image{}".format(number),
            ori_filename="image{}".format(number),
        )
        for number, (size, padded, scale) in enumerate(described)
    ]


def detections(results: Sequence[Any]) -> List[Dict[str, torch.Tensor]]:
    """Flatten what ``simple_test`` gives: for each image a list of [n, 5] arrays, one for each class."""
    return [_flat(result) for result in results]


def _flat(result: Sequence[numpy.ndarray]) -> Dict[str, torch.Tensor]:
    rows = [torch.as_tensor(numpy.asarray(of_class)) for of_class in result]
    whole = torch.cat(rows)
    labels = torch.cat([torch.full((len(of_class),), label, dtype=torch.long) for label, of_class in enumerate(rows)])
    return dict(bboxes=whole[:, :4], scores=whole[:, 4], labels=labels)


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
        self._backward_done = self._clip = None  # type: Optional[Callable]

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
        self.runner.log_buffer.clear()

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
    for moment in ("before_run", "before_train_epoch", "before_train_iter") if by_epoch else ("before_run", "before_train_iter"):
        runner.call_hook(moment)
    return HookTraining(runner, hook)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put ``value`` in the place of an attribute within."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)
