"""Go on with a training of MMDetection 3.x with mmengine's own Runner, and note what each step had."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def go_on(config: str, batches: list[str], folder: Path, start: str, order: Sequence[str]) -> list[dict[str, Any]]:
    """Resume a checkpoint and train to the end of the config.

    Args:
        config: of 3.x: model, optimizer, schedules, loop and hooks are taken as they are.
        batches: files as `legacy_adapters.inputs` has them, one for each step of an epoch.
        folder: where to work.
        start: the checkpoint.
        order: of the parameters in which the norm of all gradients is summed, which rounds.

    Returns:
        For each step its number, rates, losses, and the weights and the optimizer's state that it left.
    """
    import torch
    from mmengine.hooks import Hook
    from mmengine.model import BaseDataPreprocessor
    from mmengine.runner import Runner
    from safetensors.torch import load_file

    import ddq_port.models  # noqa: F401  (registers the detectors)
    from legacy_adapters import mmdet3
    from legacy_adapters.inputs import Batch
    from legacy_adapters.numerics.seeding import seed_all

    steps: list[dict[str, Any]] = []

    class Notes(Hook):
        priority = "NORMAL"

        def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
            seed_all(0, f"step {runner.iter + 1}")
            optimizer = runner.optim_wrapper.optimizer
            names = {id(param): name for name, param in runner.model.named_parameters()}
            self.rates = {
                names[id(param)]: dict(lr=group["lr"], momentum=list(group["betas"]) if "betas" in group else group.get("momentum"))
                for group in optimizer.param_groups
                for param in group["params"]
            }

        def before_train(self, runner: Any) -> None:
            if not runner.optim_wrapper.clip_grad_kwargs:
                return
            names = {id(param): order.index(name) for name, param in runner.model.named_parameters()}
            clip = runner.optim_wrapper.clip_func
            runner.optim_wrapper.clip_func = lambda params, **how: clip(sorted(params, key=lambda one: names[id(one)]), **how)

    class Left(Hook):
        priority = "VERY_LOW"

        def after_train_iter(self, runner: Any, *args: Any, outputs: Any = None, **kwargs: Any) -> None:
            names = {id(param): name for name, param in runner.model.named_parameters()}
            ema = [hook.ema_model.module.state_dict() for hook in runner.hooks if hasattr(hook, "ema_model")]
            steps.append(
                dict(
                    step=runner.iter + 1,
                    rates=notes.rates,
                    losses={name: float(value) for name, value in outputs.items()},
                    weights={name: tensor.clone() for name, tensor in runner.model.state_dict().items()},
                    averages={name: tensor.clone() for name, tensor in ema[0].items()} if ema else {},
                    optimizer={
                        names[id(param)]: {key: torch.as_tensor(value).clone() for key, value in state.items() if value is not None}
                        for param, state in runner.optim_wrapper.optimizer.state.items()
                    },
                )
            )

    class Data(torch.utils.data.Dataset):
        metainfo = dict(classes=("a",))

        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> dict[str, Any]:
            batch = Batch.from_tensors(load_file(batches[index]), "cpu", torch.float32)
            return dict(inputs=batch.images, data_samples=mmdet3.data_samples(batch, with_gt=True))

    notes = Notes()
    cfg = mmdet3.load_config(config)
    model = mmdet3.build_from(cfg)
    model.data_preprocessor = BaseDataPreprocessor()  # batches are what a preprocessor leaves
    runner = Runner(
        model,
        work_dir=str(folder),
        train_dataloader=torch.utils.data.DataLoader(Data(), batch_size=1, collate_fn=lambda items: items[0]),
        train_cfg=dict(cfg.train_cfg, val_interval=99),
        optim_wrapper=cfg.optim_wrapper,
        param_scheduler=cfg.get("param_scheduler"),
        custom_hooks=[notes, Left(), *(cfg.get("custom_hooks") or [])],
        load_from=start,
        resume=True,
        default_scope="mmdet",
        experiment_name=str(folder),
        log_level="ERROR",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about numbers that need a gradient
        runner.train()
    return steps
