"""Set the rates of schedules with mmcv 1.x's own hooks, without a model: ``python FILE REPO CASES.json``; prints JSON.

Runs where mmcv 1.x is, in a process of its own. ``CASES.json`` is name -> the sections of a config, and the length of an epoch.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), sys.argv[1]]

from legacy_adapters import mmdet2  # noqa: E402

mmdet2.prepare(sys.argv[1], "cpu")

import mmdet.core  # noqa: E402, F401  (registers its hooks)
import torch  # noqa: E402
from mmcv.runner import build_runner  # noqa: E402


class Model(torch.nn.Module):
    """What a runner asks of a model."""

    def train_step(self, *args: object, **kwargs: object) -> None:
        """Do nothing."""


def rates(case: dict, length: int) -> list:
    params = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=rate) for rate in (0.02, 0.002)]
    optimizer = torch.optim.SGD(params, lr=0.02, momentum=0.9)
    given = dict(case.get("runner") or dict(type="EpochBasedRunner", max_epochs=case.get("total_epochs")))
    runner = build_runner(given, default_args=dict(model=Model(), optimizer=optimizer, logger=logging.getLogger("own")))
    by_epoch = runner.max_epochs is not None
    usual = {} if by_epoch else dict(by_epoch=False)  # as its runner has it, for rates only
    runner.register_lr_hook({**usual, **case["lr_config"]})
    if "momentum_config" in case:
        runner.register_momentum_hook(dict(case["momentum_config"]))
    runner.data_loader = range(length)
    runner._max_iters = runner.max_epochs * length if by_epoch else runner.max_iters
    runner.call_hook("before_run")
    seen = []
    for iteration in range(runner.max_iters):
        runner._iter, runner._epoch = iteration, iteration // length if by_epoch else 0
        if by_epoch and iteration % length == 0:
            runner.call_hook("before_train_epoch")
        runner.call_hook("before_train_iter")
        seen.append([[group["lr"], group["momentum"]] for group in optimizer.param_groups])
    return seen


logging.disable()
asked = json.loads(Path(sys.argv[2]).read_text())
print("told " + json.dumps({name: rates(case, asked["length"]) for name, case in asked["cases"].items()}))
