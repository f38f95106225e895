"""Train detectors of MMDetection 2.x with mmcv 1.x's own runner and hooks: ``python FILE REPO JOBS.json``.

Runs where mmcv 1.x is, in a process of its own. Writes checkpoints as each config says, and to ``log`` what each step had.
``JOBS.json`` is a list of arguments of :func:`train`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), sys.argv[1]]

from legacy_adapters import mmdet2  # noqa: E402
from legacy_adapters.inputs import Batch  # noqa: E402
from legacy_adapters.numerics.seeding import seed_all  # noqa: E402

mmdet2.prepare(sys.argv[1], "cpu")

import mmdet.core  # noqa: E402, F401  (registers its hooks)
import torch  # noqa: E402
from mmcv import Config  # noqa: E402
from mmcv.runner import Hook, build_optimizer, build_runner  # noqa: E402
from mmdet.models import build_detector  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

time.sleep = lambda seconds: None  # the runner waits between epochs


class Notes(Hook):
    """Seeds each step by its number, and notes what it had and what it left."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names, self.steps, self.rates = names, [], {}

    def before_train_iter(self, runner: Any) -> None:
        seed_all(0, f"step {runner.iter + 1}")
        self.rates = {
            self.names[id(param)]: dict(lr=group["lr"], momentum=group.get("momentum", list(group.get("betas", ()))))
            for group in runner.optimizer.param_groups
            for param in group["params"]
        }

    def after_train_iter(self, runner: Any) -> None:
        weights = runner.model.state_dict()
        self.steps.append(
            dict(
                step=runner.iter + 1,
                rates=self.rates,
                losses=dict(runner.outputs["log_vars"]),
                weights={name: tensor.clone() for name, tensor in weights.items()},
                optimizer={
                    self.names[id(param)]: {key: torch.as_tensor(value).clone() for key, value in state.items() if value is not None}
                    for param, state in runner.optimizer.state.items()
                },
            )
        )


class Loader(list):
    """What a runner asks of a loader of data."""

    sampler = None


def batch_of(path: str) -> dict[str, Any]:
    batch = Batch.from_tensors(load_file(path), "cpu", torch.float32)
    return dict(img=batch.images, img_metas=mmdet2.metas(batch), gt_bboxes=batch.gt_bboxes, gt_labels=batch.gt_labels)


def train(config: str, batches: list[str], folder: str, log: str, resume: str | None = None) -> None:
    """Train a detector to the end of its config.

    Args:
        config: of 2.x.
        batches: files as `legacy_adapters.inputs` has them, one for each step of an epoch.
        folder: where to work.
        log: file for what each step had.
        resume: checkpoint to go on from.
    """
    cfg = Config.fromfile(config)
    seed_all(0, "weights")
    model = build_detector(cfg.model)
    model.init_weights()
    model.CLASSES = tuple(f"class {number}" for number in range(7))
    own = dict(
        model=model, optimizer=build_optimizer(model, cfg.optimizer), work_dir=folder, logger=logging.getLogger("own"),
        meta=dict(config=cfg.pretty_text, seed=0, exp_name=os.path.basename(config)),
    )  # fmt: skip
    runner = build_runner(dict(cfg.runner), default_args=own)
    runner.register_training_hooks(
        cfg.get("lr_config"), cfg.optimizer_config, cfg.checkpoint_config, None, momentum_config=cfg.get("momentum_config"),
        custom_hooks_config=cfg.get("custom_hooks"),
    )  # fmt: skip
    notes = Notes({id(param): name for name, param in model.named_parameters()})
    runner.register_hook(notes, priority="VERY_LOW")
    if resume is not None:
        runner.resume(resume, map_location="cpu")
    runner.run([Loader(map(batch_of, batches))], [("train", 1)])
    torch.save(notes.steps, log)


if __name__ == "__main__":
    logging.disable()
    for job in json.loads(Path(sys.argv[2]).read_text()):
        train(**job)
