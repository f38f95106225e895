"""A training of milliseconds that uses every kind of random draw, to be run by mmengine's Runner."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ddq_port.hooks  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

IMAGES, BATCH = 14, 2


class Images(Dataset):
    """Numbered images, augmented by three generators. ``read`` lists those read in this process."""

    metainfo = dict(classes=("a",))

    def __init__(self, length: int = IMAGES) -> None:
        self.length, self.read = length, []

    def __len__(self) -> int:
        return self.length

    def get_data_info(self, index: int) -> dict[str, int]:
        return dict(width=10 + index % 3, height=11)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read.append(index)
        noise = [random.random(), np.random.rand(), float(torch.rand(()))]
        return dict(inputs=torch.tensor([float(index), *noise]), data_samples=Sample(f"images/{index:02}.png"))


class Sample:
    """What mmdet's data samples have in common."""

    def __init__(self, path: str) -> None:
        self.metainfo = dict(img_path=path, img_id=1)


class Model(BaseModel):
    """Two layers, dropout, noise, and a batch norm whose buffers are trained as well.

    Args:
        fails_at: the term ``loss_b`` of this iteration, from 1, is NaN.
    """

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.fails_at, self.calls = fails_at, 0

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        x = torch.stack(list(inputs)) / 10
        if mode != "loss":
            torch.rand(3)  # a model may draw in validation, too
            return [dict(found=1) for _ in x]
        self.calls += 1
        out = self.layers(x + 0.1 * torch.rand_like(x))
        term = out.abs().sum() * (torch.nan if self.calls == self.fails_at else 1.0)
        return dict(loss_a=(out - 1).square().mean(), loss_b=term, height=out.mean())


class Record(Hook):
    """Keep iteration, place in the epoch and loss bit for bit; stop in the midst of an iteration if told to."""

    priority = "LOW"

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.losses, self.places = stop_at, {}, []
        self.read: list[int] = []  # images that the training's process has read

    def before_train_epoch(self, runner: Runner) -> None:
        torch.rand(3)  # a hook may draw, too

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.stop_at:
            raise KeyboardInterrupt
        self.places.append(batch_idx)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses[runner.iter + 1] = outputs["loss"].item().hex()


class Drawn(Sampler):
    """A sampler that draws from the global generators as it goes."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __iter__(self) -> Iterator[int]:
        left = list(range(len(self.dataset)))
        while left:
            yield left.pop((np.random.randint(2**20) + random.randrange(2**20)) % len(left))

    def __len__(self) -> int:
        return len(self.dataset)


class Better(BaseMetric):
    """A metric that becomes better with every validation."""

    default_prefix = "toy"

    def __init__(self) -> None:
        super().__init__()
        self.validations = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.validations += 1
        return dict(score=float(self.validations))


def validation(interval: int) -> dict[str, Any]:
    """Return the settings of a validation every so many epochs or iterations."""
    loader = dict(dataset=dict(type=Images, length=4), sampler=dict(type="DefaultSampler", shuffle=False), batch_size=2)
    return dict(val_dataloader=loader, val_evaluator=[Better()], val_cfg=dict(), val_interval=interval)


def runner(work_dir: Path, record: Record, *, by_epoch: bool, exact: bool = True, **overrides: Any) -> Runner:
    """Return a Runner of 3 epochs of 7 batches, or as many iterations, that saves every 2 iterations."""
    MMLogger._instance_dict.clear()
    hooks = [record, *overrides.pop("hooks", [])]
    loader = dict(
        dataset=dict(type=Images),
        sampler=dict(type="DefaultSampler", shuffle=True),
        batch_size=BATCH,
        num_workers=0,
    )
    loader.update(overrides.pop("loader", {}))
    checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=2) | overrides.pop("checkpoint", {})
    val_interval = overrides.pop("val_interval", 1)
    train_cfg = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=21)
    settings: dict[str, Any] = dict(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(train_cfg, val_interval=val_interval),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.05), clip_grad=dict(max_norm=1.0)),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=9),
            dict(type="MultiStepLR", by_epoch=by_epoch, milestones=[2 if by_epoch else 11], gamma=0.3),
        ],
        default_hooks=dict(
            checkpoint=checkpoint,
            logger=dict(type="LoggerHook", interval=3),
        ),
        custom_hooks=[*hooks, *([dict(type="ddq_port.ExactResumeHook")] if exact else [])],
        default_scope="mmengine",
        randomness=dict(seed=5),
        experiment_name=f"toy{next(_NUMBERS)}",
        log_level=logging.ERROR,
    )
    settings.update(overrides)
    return Runner(**settings)


_NUMBERS = iter(range(10**6))


def losses_of(run: Runner, record: Record) -> dict[int, str]:
    """Train; an interruption that ``record`` makes ends it like a kill does."""
    try:
        run.train()
    except KeyboardInterrupt:
        assert record.stop_at is not None
    return record.losses


def weights(run: Runner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
