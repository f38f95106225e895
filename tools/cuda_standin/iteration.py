"""Count how often the host waits in a whole iteration of mmengine's Runner: ``python -m tools.cuda_standin.iteration``.

The Runner has the hooks of ``ddq-train`` and batches that are in memory. What is counted begins where one iteration has
ended and ends where the next one has: loading and moving the batch, forward, backward, clipping, optimizer, all hooks.
Prints a line of JSON for each number of decoder layers: waits by kind and by place.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import tempfile
from typing import Any

import torch

from . import device
from .waits import Waits

#: Iterations of an epoch, whose last one is logged with what only a GPU could tell.
_EPOCH = 1000
#: The iteration that is counted; in those before it optimizer and logs come into being.
_COUNTED = 2
SIZES, OBJECTS = ((96, 128), (64, 64)), (3, 12)


def main() -> None:
    """Run the trainings one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_4scale")
    parser.add_argument("--numerics", default="fast", choices=("fast", "legacy"))
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 6], help="of the decoder; 2 and 6 by default")
    given = parser.parse_args()
    device.install()
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # mmengine's messages
        for layers in given.layers:
            waits = count(given.variant, given.numerics, layers)
            places = {f"{kind}, {place}": number for (kind, place), number in waits.counts.most_common()}
            told = dict(layers=layers, waits=waits.total(), kinds=waits.by_kind(), places=places)
            print(json.dumps(told), file=out, flush=True)


def count(variant: str, numerics: str, layers: int) -> Waits:
    """Train for some iterations; return the waits of the last one."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    import ddq_port.models  # noqa: F401  (registers the detectors)
    from ddq_port import configs
    from ddq_port.hooks import StopOnNonFiniteLossHook

    config = configs.load(configs.VARIANTS[variant])
    config.model.numerics, config.model.decoder.num_layers = numerics, layers
    model, seen = _model(config), Waits()

    class Counting(Hook):
        priority = "LOWEST"

        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter + 1 < _COUNTED:
                seen.counts.clear()

    class Quiet(Runner):
        def _log_env(self, env_cfg: Any) -> None:
            """Ask nothing of the GPU."""

        def _init_model_weights(self) -> None:
            """Leave the model as it was initialised before it was moved."""

    with tempfile.TemporaryDirectory() as folder, device.StandIn(seen):
        runner = Quiet(
            model=model,
            work_dir=folder,
            train_dataloader=torch.utils.data.DataLoader([0] * _EPOCH, collate_fn=lambda numbers: _batch()),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=_COUNTED, val_interval=_EPOCH),
            optim_wrapper=config.optim_wrapper,
            default_hooks=dict(checkpoint=None, sampler_seed=None),
            custom_hooks=[StopOnNonFiniteLossHook(), Counting()],
            default_scope="mmdet",
            randomness=dict(seed=0),
            experiment_name=f"waits-{variant}-{numerics}-{layers}",
            log_level="ERROR",
        )
        runner.train()
    return seen


def _model(config: Any) -> torch.nn.Module:
    from mmengine.registry import DefaultScope

    from ddq_port.registry import MODELS

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    model.init_weights()
    return model


def _batch() -> dict[str, list[Any]]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for (height, width), number in zip(SIZES, OBJECTS):
        inputs.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator))
        corner = torch.rand(number, 2, generator=generator) * 0.6
        boxes = torch.cat([corner, corner + 0.3], 1) * torch.tensor([width, height] * 2)
        size = (height, width)
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(number) % 3)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
