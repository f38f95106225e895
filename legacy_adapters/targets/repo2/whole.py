"""Whole trainings and tests of an official repo by its mmcv 1.x: runner, hooks, optimizer, checkpoints, evaluation."""

from __future__ import annotations

import logging
import os
import re
from typing import Any, Callable, Dict, Iterator, List

import torch
from torch.utils.data import BatchSampler, DataLoader

from legacy_adapters.whole import draws, given, steplog
from legacy_adapters.whole.request import STEPS, Data, Outcome, WholeTest, WholeTraining

#: Name of a stage's loss term in 2.x, and how 3.x writes its stage.
_STAGE, _STAGE_OF_3X = re.compile(r"^stage(\d+)_"), r"s\1."


def train(build: Callable[[Any], Any], config: Any, request: WholeTraining) -> Outcome:
    """Train as a config says.

    Args:
        build: makes the model of a config.
        config: mmcv's, of a whole training by steps; it is changed.
        request: what to train.
    """
    from mmcv.parallel import MMDataParallel
    from mmcv.runner import build_optimizer, build_runner
    from mmdet.core import EvalHook

    _use(config, request)
    draws.seed_all(request.seed)
    model = build(config)
    model.init_weights()
    model.CLASSES = config.data.train.classes
    wrapped = MMDataParallel(model, device_ids=[0])  # without a GPU it hands everything on
    own = dict(
        model=wrapped,
        optimizer=build_optimizer(wrapped, config.optimizer),
        work_dir=request.work_dir,
        logger=_quiet(),
        meta=dict(CLASSES=model.CLASSES),
    )
    runner = build_runner(dict(config.runner), default_args=own)
    runner.register_training_hooks(config.lr_config, config.optimizer_config, config.checkpoint_config)
    evaluation = dict(config.evaluation, by_epoch=False)
    runner.register_hook(EvalHook(_validation(config), **evaluation), priority="LOW")
    if request.resume is not None:
        _resume(runner, request.resume)
    if request.stop_at is not None:
        runner._max_iters = request.stop_at
    loader = _loader(config, request.seed)
    stream = draws.Stream(loader, request.seed, lambda: runner.iter)
    hook = follow(request, {info["filename"]: info["id"] for info in loader.dataset.data_infos})
    runner.register_hook(hook)
    runner.run([_Endless(stream)], [("train", 1)])
    last = os.path.join(request.work_dir, "iter_{}.pth".format(runner.iter))
    return Outcome(hook.metrics, runner.iter, last)


def test(build: Callable[[Any], Any], config: Any, request: WholeTest) -> Outcome:
    """Test a checkpoint as a config says; arguments as of :func:`train`."""
    from mmcv.parallel import MMDataParallel
    from mmcv.runner import load_checkpoint
    from mmdet.apis import single_gpu_test

    _use(config, request)
    model = build(config)
    load_checkpoint(model, request.checkpoint, map_location="cpu", strict=True)
    model.CLASSES = config.data.val.classes
    loader = _validation(config)
    results = single_gpu_test(MMDataParallel(model, device_ids=[0]), loader)
    return Outcome(_metrics(loader.dataset.evaluate(results, metric="bbox")), 0, request.checkpoint)


def _use(config: Any, request: Any) -> None:
    """Put settings and data into a config."""
    from mmcv import DictAction

    given.merge_settings(config, request.settings, DictAction)
    if isinstance(request, WholeTraining):
        _use_data(config.data.train, request.data)
    for part in ("val", "test"):
        _use_data(config.data[part], request.val_data)


def _use_data(section: Any, data: Data) -> None:
    section.update(ann_file=data[0], img_prefix=data[1], classes=tuple(given.classes_of(data[0])))


def _quiet() -> logging.Logger:
    logger = logging.getLogger("legacy training")
    logger.setLevel(logging.WARNING)
    return logger


def _validation(config: Any) -> DataLoader:
    from mmdet.datasets import build_dataloader, build_dataset

    data = build_dataset(config.data.val, dict(test_mode=True))
    return build_dataloader(data, samples_per_gpu=1, workers_per_gpu=0, dist=False, shuffle=False)


def _loader(config: Any, seed: int) -> DataLoader:
    """Return the repo's loader of the images of training, in the order in which the port takes them."""
    from mmdet.datasets import build_dataloader, build_dataset

    data, count = build_dataset(config.data.train), config.data.samples_per_gpu
    own = build_dataloader(data, count, workers_per_gpu=0, dist=False, shuffle=False)
    order = BatchSampler(_Order(len(data), seed), count, drop_last=False)
    return DataLoader(data, batch_sampler=order, collate_fn=own.collate_fn)


class _Order:
    """The order of images of mmengine's ``DefaultSampler``: a permutation for each pass.

    Args:
        length: number of images.
        seed: of the first pass.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next order that of another pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        return iter(torch.randperm(self.length, generator=generator).tolist())

    def __len__(self) -> int:
        return self.length


class _Endless:
    """What the runner takes for a loader, and iterates: it goes on with the stream.

    Attributes:
        batch: the one of the step that is taken.
    """

    def __init__(self, stream: draws.Stream) -> None:
        self.stream, self.sampler, self.batch = stream, None, None

    def __iter__(self) -> "_Endless":
        return self

    def __next__(self) -> Any:
        self.batch = next(self.stream)
        return self.batch

    def __len__(self) -> int:
        return len(self.stream.loader)


def _resume(runner: Any, path: str) -> None:
    """Go on from a checkpoint.

    Its iteration is one too few where mmcv's hook wrote it, within the step, so that mmcv takes the step again. The
    optimizer knows how many steps it took.
    """
    runner.resume(path, map_location="cpu")
    counts = {int(state["step"]) for state in runner.optimizer.state.values() if "step" in state}
    runner._iter = max(counts, default=runner.iter)


def _metrics(told: Dict[str, Any]) -> Dict[str, float]:
    """Return the APs of an evaluation under the names of 3.x."""
    names = [name for name in told if name.startswith("bbox_mAP") and not name.endswith("copypaste")]
    return {"coco/" + name: float(told[name]) for name in names}


def follow(request: WholeTraining, ids: Dict[str, int]) -> Any:
    """Return a hook for mmcv's runner that seeds the draws of each step and writes what it did.

    Args:
        request: of the training.
        ids: name of a file -> id of its image.
    """
    from mmcv.runner import Hook

    class FollowHook(Hook):
        """Behind the optimizer's hook, before that of the evaluation, which clears what was logged."""

        metrics: Dict[str, float] = {}

        def before_run(self, runner: Any) -> None:
            if request.start_to is not None and runner.iter == 0:
                torch.save(dict(state_dict=runner.model.module.state_dict()), request.start_to)
            self.log = steplog.StepLog(os.path.join(request.work_dir, STEPS), runner.iter)

        def before_train_iter(self, runner: Any) -> None:
            draws.seed_all(request.seed, runner.iter, draws.MODEL)
            self.before = steplog.digest_of_weights(runner.model.module)
            self.rates = steplog.exact_all(group["lr"] for group in runner.optimizer.param_groups)

        def after_train_iter(self, runner: Any) -> None:
            told = {name: steplog.exact(value) for name, value in runner.outputs["log_vars"].items()}
            total = told.pop("loss")
            norms = runner.log_buffer.val_history.get("grad_norm")
            self.log.add(
                steplog.Step(
                    step=runner.iter + 1,
                    rates=self.rates,
                    before=self.before,
                    terms={_STAGE.sub(_STAGE_OF_3X, name): value for name, value in told.items()},
                    total=total,
                    norm=steplog.exact(norms[-1]) if norms else None,
                    after=steplog.digest_of_weights(runner.model.module),
                    **_described(runner.data_loader.iter_loader.batch, ids),
                )
            )

        def after_run(self, runner: Any) -> None:
            self.metrics = _metrics(runner.log_buffer.output)
            self.log.close()

    return FollowHook()


def _described(batch: Dict[str, Any], ids: Dict[str, int]) -> Dict[str, Any]:
    """Return ids of a batch's images and digests of their pixels and objects, as before they were normalised."""
    metas = batch["img_metas"].data[0]
    norm = metas[0]["img_norm_cfg"]
    scale, shift = (torch.from_numpy(norm[name]).view(3, 1, 1) for name in ("std", "mean"))
    pixels = [
        (image[:, : meta["img_shape"][0], : meta["img_shape"][1]] * scale + shift).round().to(torch.uint8).flip(0)
        for image, meta in zip(batch["img"].data[0], metas)
    ]
    objects: List[torch.Tensor] = []
    for pair in zip(batch["gt_bboxes"].data[0], batch["gt_labels"].data[0]):
        objects.extend(pair)
    return dict(
        images=tuple(ids[meta["ori_filename"]] for meta in metas),
        pixels=steplog.digest(pixels),
        objects=steplog.digest(objects),
    )
