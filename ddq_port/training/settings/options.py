"""Options of the command lines `ddq-train` and `ddq-eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

AUTO = "auto"


class ConfigError(Exception):
    """A config cannot be read, or what was asked for cannot be done with it."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train; None leaves a setting to the config.

    Attributes:
        config: file or name of an installed config.
        work_dir: folder of logs and checkpoints.
        resume: a checkpoint, or `auto` for the newest one in the work dir.
        override_schedule: whether to resume with learning rates and schedules of the config, if the saved ones differ.
        load_from: weights to begin with.
        partial: whether they may fit in part.
        allow_other_classes: whether a checkpoint may be of classes of other names than the data.
        backbone_weights: weights of the backbone to begin with.
        amp: `fp16` or `bf16`.
        fast: whether to compute with fast numerics.
        auto_scale_lr: whether to scale learning rates with the batch.
        seed: of everything that is random.
        deterministic: whether to take deterministic kernels, where torch has them.
        ema: share of the new weights in the running average at every step, in (0, 1).
        tensorboard: whether to write TensorBoard's files, too.
        data: annotation file and image folder to train on; its classes become those of the config.
        val_data: the same to validate and test on.
        check_data: whether to look for errors in the data first.
        launcher: one of `launch.LAUNCHERS`.
        cfg_options: `key=value` texts.
    """

    config: str
    work_dir: Path | None = None
    resume: str | None = None
    override_schedule: bool = False
    load_from: str | None = None
    partial: bool = False
    allow_other_classes: bool = False
    backbone_weights: Path | None = None
    amp: str | None = None
    fast: bool = False
    auto_scale_lr: bool = False
    seed: int | None = None
    deterministic: bool = False
    ema: float | None = None
    tensorboard: bool = False
    data: tuple[Path, Path] | None = None
    val_data: tuple[Path, Path] | None = None
    check_data: bool = True
    launcher: str = "none"
    cfg_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate.

    Attributes:
        config: file or name of an installed config.
        checkpoint: `.pth` or `.safetensors`.
        work_dir: folder of logs.
        predictions: file name without `.bbox.json` for COCO results, None for none.
        show_dir: folder for images with predictions drawn in.
        classwise: whether to give the AP of each class.
        allow_other_classes: whether the checkpoint may be of classes of other names than the data.
        check_data: whether to look for errors in the annotation files first.
        fast: whether to compute with fast numerics.
        launcher: one of `launch.LAUNCHERS`.
        cfg_options: `key=value` texts.
    """

    config: str
    checkpoint: str
    work_dir: Path
    predictions: Path | None = None
    show_dir: Path | None = None
    classwise: bool = False
    allow_other_classes: bool = False
    check_data: bool = True
    fast: bool = False
    launcher: str = "none"
    cfg_options: tuple[str, ...] = ()
