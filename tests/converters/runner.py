"""Train a detector for some epochs with mmengine's own Runner, from weights or resumed from a checkpoint.

Runs in the test's process, or for the official code, which has an mmengine of its own, in one of its own:
``python runner.py JOB.json``, a file with the arguments of `official`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BATCHES = 2  # steps of an epoch
EMA = dict(type="EMAHook", momentum=0.3)  # far from 0 and 1, so that averaged and training weights differ


def train(model: Any, config: Any, batches: list[str], folder: Path, epochs: int, start: str | None = None) -> None:
    """Train until `epochs` are over, draws seeded by the number of the step; save `epoch_1.pth` and so on in `folder`.

    An EMAHook averages the weights.

    Args:
        model: A detector of mmdet, with the weights to start from.
        config: Of the detector; optimizer, clipping and schedules are taken as they are.
        batches: Files as `legacy_adapters.inputs` has them, one for each step of an epoch.
        folder: Where to work.
        epochs: How many there are after the training.
        start: Checkpoint to resume from.
    """
    import torch
    from mmengine.hooks import Hook
    from mmengine.model import BaseDataPreprocessor
    from mmengine.runner import Runner
    from safetensors.torch import load_file

    from legacy_adapters import mmdet3
    from legacy_adapters.inputs import Batch

    class Seeds(Hook):
        def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
            torch.manual_seed(runner.iter)

    class Data(torch.utils.data.Dataset):
        metainfo = dict(classes=("disc", "box", "bar"))

        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> dict[str, Any]:
            batch = Batch.from_tensors(load_file(batches[index]), "cpu", torch.float32)
            return dict(inputs=batch.images, data_samples=mmdet3.data_samples(batch, with_gt=True))

    model.data_preprocessor = BaseDataPreprocessor()  # batches are what a preprocessor leaves
    runner = Runner(
        model,
        work_dir=str(folder),
        train_dataloader=torch.utils.data.DataLoader(Data(), batch_size=1, collate_fn=lambda items: items[0]),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=config.optim_wrapper,
        param_scheduler=config.param_scheduler,
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        custom_hooks=[Seeds(), EMA],
        load_from=start,
        resume=start is not None,
        default_scope="mmdet",
        experiment_name=str(folder),
        log_level="ERROR",
    )
    runner.train()


def official(repo: str, config: str, overrides: str, weights: str, **how: Any) -> None:
    """Train the official model: arguments of its adapter, a file of weights, and arguments of `train`."""
    from safetensors.torch import load_file

    from legacy_adapters import mmdet3
    from legacy_adapters.families.ddq_detr.legacy import ADAPTER

    model = ADAPTER.build(dict(repo=repo, config=config, overrides=overrides), "cpu")
    import mmengine.config.config as config_module  # the repo's own, on the path since the model was built

    formatted = config_module.FormatCode
    # its argument `verify` is gone from today's yapf
    config_module.FormatCode = lambda text, verify=True, **options: formatted(text, **options)
    model.load_state_dict(load_file(weights), strict=False)  # seeded weights have no counters
    train(model, shortened(mmdet3.load_config(f"{repo}/{config}")), **{**how, "folder": Path(how["folder"])})


def shortened(config: Any) -> Any:
    """Return a config whose schedules do something in a training of few steps, and whose gradients are not clipped.

    The norm of all gradients is summed in the order of the parameters, which is another one on the two sides.
    """
    config.optim_wrapper.clip_grad = None
    config.param_scheduler = [
        dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=3 * BATCHES - 1),
        dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[1, 2], gamma=0.5),
    ]
    return config


if __name__ == "__main__":
    official(**json.loads(Path(sys.argv[1]).read_text()))
