"""Write checkpoints of MMDetection 2.x with optimizers that mmcv 1.x makes: ``python FILE REPO FOLDER JOBS.json``.

Runs where mmcv 1.x is, in a process of its own. ``JOBS.json`` is a list of configs; beside ``NAME.pth`` of each stands
``NAME.json``: for each parameter that is trained the settings of its group and a number that its state holds.
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

import mmdet.core  # noqa: E402, F401  (registers its constructors)
import torch  # noqa: E402
from mmcv import Config  # noqa: E402
from mmcv.runner import build_optimizer, save_checkpoint  # noqa: E402
from mmdet.models import build_detector  # noqa: E402


def write(config: str, folder: Path) -> None:
    name, cfg = Path(config).stem, Config.fromfile(config)
    model = build_detector(cfg.model)
    optimizer = build_optimizer(model, cfg.optimizer)
    names = {id(param): name for name, param in model.named_parameters()}
    for number, param in enumerate(model.parameters()):
        if param.requires_grad and number % 5:  # some have no gradient
            param.grad = torch.full_like(param, float(number + 1))
    optimizer.step()
    told = {}
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        settings = {key: group[key] for key in ("lr", "weight_decay", "momentum", "betas", "alpha") if key in group}
        for param in group["params"]:
            state = optimizer.state.get(param, {})
            held = {key: value.double().sum().item() for key, value in state.items() if torch.is_tensor(value)}
            if param.requires_grad:
                told[names[id(param)]] = dict(settings=settings, state=held)
    meta = dict(epoch=1, iter=3, config=cfg.pretty_text)
    save_checkpoint(model, str(folder / f"{name}.pth"), optimizer=optimizer, meta=meta)
    (folder / f"{name}.json").write_text(json.dumps(told))


logging.disable()
for path in json.loads(Path(sys.argv[3]).read_text()):
    write(path, Path(sys.argv[2]))
