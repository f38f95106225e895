"""A whole config of MMDetection 2.x in the words of 3.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.configs.kinds import ABSENT, Translation

from . import data, runtime
from .draft import Draft
from .model import model
from .training import training

#: What mmdet 2.x itself reads at the top of a config; every other name there is a variable of the file.
READ = (
    "model", "data", "optimizer", "optimizer_config", "lr_config", "momentum_config", "runner", "total_epochs",
    "checkpoint_config", "log_config", "evaluation", "workflow", "custom_hooks", "custom_imports", "load_from",
    "resume_from", "fp16", "dist_params", "log_level", "work_dir", "seed", "gpu_ids", "auto_resume", "auto_scale_lr",
    "cudnn_benchmark", "opencv_num_threads", "mp_start_method", "find_unused_parameters", "device", "train_cfg",
    "test_cfg", "plugin", "plugin_dir", "gpus", "deterministic", "diff_seed",
)  # fmt: skip
_ORDER = (
    "default_scope", "custom_imports", "model", "train_dataloader", "val_dataloader", "test_dataloader",
    "val_evaluator", "test_evaluator", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler",
    "auto_scale_lr", "default_hooks", "custom_hooks",
)  # fmt: skip


def translate(old: Mapping[str, Any]) -> Translation:
    """Return a config in the words of 3.x.

    What the old config does not say is not said in the new one, so that an excerpt remains one.
    """
    draft = Draft(config=dict(default_scope="mmdet"))
    made = data.loaders(draft, old)
    new = model(draft, old)
    batch = new.pop("data_preprocessor", None)
    data.preprocessor(draft, made, new)
    if batch is not None and "data_preprocessor" in new:
        divisor = max(batch["pad_size_divisor"], new["data_preprocessor"]["pad_size_divisor"])
        new["data_preprocessor"].update(pad_size_divisor=divisor, batch_augments=batch["batch_augments"])
    elif batch is not None:
        draft.remark(
            "model.random_size_range",
            ABSENT,
            "batches are resized by the preprocessor in 3.x, which this config says nothing of",
        )
    first = {name: new.pop(name) for name in ("type", "data_preprocessor") if name in new}
    draft.config["model"] = {**first, **new}
    data.evaluators(draft, old)
    training(draft, old)
    runtime.runtime(draft, old)
    names = [name for name in old if name not in READ]
    if names:
        draft.remark(", ".join(names), ABSENT, "variables of the file, which mmdet 2.x does not read itself")
    draft.config = {
        name: draft.config[name] for name in dict.fromkeys((*_ORDER, *draft.config)) if name in draft.config
    }
    return draft.translation()
