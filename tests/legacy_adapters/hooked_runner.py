"""Train a toy with an adapter's help and with mmcv 1.x's own runner; print what both did as JSON: ``python FILE REPO``.

Runs where mmcv 1.x is, in a process of its own.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), sys.argv[1]]

from legacy_adapters import shims, standin  # noqa: E402

shims.install("cpu")
standin.install()

import torch  # noqa: E402
from mmcv import ConfigDict  # noqa: E402
from mmcv.runner import Hook, build_optimizer, build_runner  # noqa: E402
from torch import nn  # noqa: E402

from legacy_adapters.recording.recorder import Recorder  # noqa: E402
from legacy_adapters.recording.trace_writer import TraceWriter  # noqa: E402
from legacy_adapters.training import hooked  # noqa: E402
from legacy_adapters.training.steps import Plan, StepLoop  # noqa: E402

EPOCHS, EPOCH_LENGTH = 3, 3
DATA = [torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) * 10 for seed in range(EPOCH_LENGTH)]
BY_EPOCH, BY_STEP = dict(type="EpochBasedRunner", max_epochs=EPOCHS), dict(type="IterBasedRunner", max_iters=9)
STEP = dict(policy="step", step=[1, 2])
CLIP = dict(grad_clip=dict(max_norm=0.1, norm_type=2))
CASES = dict(
    step=dict(lr_config=STEP, optimizer_config=CLIP),
    not_clipped=dict(lr_config=STEP, optimizer_config=dict(grad_clip=None)),
    linear=dict(lr_config=dict(STEP, warmup="linear", warmup_iters=4, warmup_ratio=0.1), optimizer_config=CLIP),
    exponential=dict(lr_config=dict(STEP, warmup="exp", warmup_iters=4, warmup_ratio=0.1), optimizer_config=CLIP),
    constant=dict(
        lr_config=dict(policy="CosineAnnealing", min_lr=0, warmup="constant", warmup_iters=1, warmup_ratio=0.1,
                       warmup_by_epoch=True),
        optimizer_config=CLIP,
    ),
    by_step=dict(lr_config=dict(policy="poly", power=0.9, min_lr=1e-4), optimizer_config=CLIP, runner=BY_STEP),
    accumulated=dict(
        lr_config=STEP, optimizer_config=dict(CLIP, type="GradientCumulativeOptimizerHook", cumulative_iters=2)
    ),
    momentum=dict(
        lr_config=dict(policy="cyclic", by_epoch=False, target_ratio=(10, 1e-4), cyclic_times=1, step_ratio_up=0.4),
        momentum_config=dict(policy="cyclic", by_epoch=False, target_ratio=(0.85, 1), cyclic_times=1, step_ratio_up=0.4),
        optimizer_config=CLIP,
    ),
)  # fmt: skip
#: Steps after which a training is stopped: within an epoch, and at the end of one.
RESUMED = dict(step=(4, 3), linear=(2,), by_step=(4,), momentum=(5,))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.norm, self.head = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)

    def loss(self, inputs):
        return self.head(self.norm(self.backbone(inputs)).relu()).square().sum()

    def train_step(self, data, optimizer, **kwargs):
        return dict(loss=self.loss(data), num_samples=len(data), log_vars={})


class Rates(Hook):
    """Notes with what each step is taken."""

    def __init__(self) -> None:
        self.seen = []

    def after_train_iter(self, runner) -> None:
        self.seen.append(settings(runner.optimizer))


class Loader(list):
    """What a runner asks of a loader of data."""

    sampler = None


def settings(optimizer) -> list:
    return [[group["lr"], group.get("momentum", group.get("betas"))] for group in optimizer.param_groups]


def config(changes: dict) -> ConfigDict:
    paramwise = dict(custom_keys=dict(backbone=dict(lr_mult=0.1)), norm_decay_mult=0.0)
    optimizer = dict(type="AdamW", lr=0.01, weight_decay=0.05, paramwise_cfg=paramwise)
    return ConfigDict(dict(dict(optimizer=optimizer, runner=BY_EPOCH), **changes))


def by_runner(changes: dict) -> tuple:
    model, cfg, rates = Toy(), config(changes), Rates()
    own = dict(model=model, optimizer=build_optimizer(model, cfg.optimizer), logger=logging.getLogger("own"),
               work_dir=tempfile.mkdtemp())  # fmt: skip
    runner = build_runner(dict(cfg.runner), default_args=own)
    runner.register_training_hooks(cfg.lr_config, cfg.optimizer_config, None, None, cfg.get("momentum_config"))
    runner.register_hook(rates, priority="VERY_LOW")
    runner.run([Loader(DATA)], [("train", 1)])
    return rates.seen, model


def by_steps(changes: dict, folder: str) -> tuple:
    model = Toy()
    made = hooked.training(model, config(changes), EPOCH_LENGTH)
    loop = StepLoop(made, model, Recorder(TraceWriter(folder)), Plan(EPOCHS * EPOCH_LENGTH, EPOCH_LENGTH))
    seen, update = [], made.update

    def noted(total: torch.Tensor) -> None:
        update(total)
        seen.append(settings(made.optimizer))

    made.update = noted

    def losses(step: int) -> tuple:
        total = model.loss(DATA[(step - 1) % EPOCH_LENGTH])
        return dict(loss=total), total

    loop.run(losses)
    return seen, model, made.wrapper_options()


def resumed(changes: dict, folder: str, stop: int) -> nn.Module:
    """Stop a training after a step, and go on from its checkpoint with a model and machinery made anew."""
    file = folder + "/stopped.pth"
    for given in (dict(save=file, steps=stop + 1), dict(resume=file, steps=EPOCHS * EPOCH_LENGTH)):
        model = Toy()
        made = hooked.training(model, config(changes), EPOCH_LENGTH)
        plan = Plan(epoch_length=EPOCH_LENGTH, stop=stop, **given)

        def losses(step: int, model: nn.Module = model) -> tuple:
            total = model.loss(DATA[(step - 1) % EPOCH_LENGTH])
            return dict(loss=total), total

        StepLoop(made, model, Recorder(TraceWriter(folder + "/" + next(iter(given)))), plan).run(losses)
    return model


def main() -> None:
    logging.disable()
    told = {}
    for name, changes in CASES.items():
        rates, model = by_runner(changes)
        seen, other, wrapper = by_steps(changes, tempfile.mkdtemp() + "/trace")
        pairs = zip(model.state_dict().values(), other.state_dict().values())
        told[name] = dict(
            rates=rates, seen=seen, same_weights=all(torch.equal(one, two) for one, two in pairs), wrapper=wrapper
        )
        if name in RESUMED:
            again = [resumed(changes, tempfile.mkdtemp(), stop) for stop in RESUMED[name]]
            told[name]["resumed"] = [
                all(torch.equal(one, two) for one, two in zip(model.state_dict().values(), other.state_dict().values()))
                for other in again
            ]
    print("told " + json.dumps(told))


main()
