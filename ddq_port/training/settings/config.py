"""Options of the command lines -> mmengine's config."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from ddq_port import configs
from ddq_port.data import own
from ddq_port.training.settings.options import ConfigError, EvalOptions, TrainOptions
from ddq_port.training.settings.start import begin

_LOOPS = ("EpochBasedTrainLoop", "IterBasedTrainLoop")
_CONSTRUCTORS = ("DefaultOptimWrapperConstructor", "LearningRateDecayOptimizerConstructor")  # one optimizer for all
_EXACT_RESUME = "ExactResumeHook"
HOOKS = (_EXACT_RESUME, "StopOnNonFiniteLossHook")  # of ddq_port, in every training
_WITH_FAST_NUMERICS = "ddq_port.DDQDETR"
_FUSED = {"AdamW": "ddq_port.FusedAdamW"}
_ABSENT = object()  # of a setting
_AMP = {
    "fp16": dict(dtype="float16", loss_scale="dynamic"),
    "bf16": dict(dtype="bfloat16", loss_scale=1.0),  # as wide a range as float32: nothing to scale
}


def for_training(options: TrainOptions) -> tuple[Config, list[str]]:
    """Return the config of a training and what its user should know, in lines.

    Nothing is built and nothing is written; what is missing is told before.

    Raises:
        ConfigError: if the config, its data or what an option needs is not there, or options exclude each other.
        weights.WeightsError: if the weights to begin with cannot be had.
        own.OwnDataError: if the config cannot be pointed at the data that were given.
    """
    cfg, notes = _loaded(options.config, options.cfg_options)
    _need(cfg, options.config, ("model", "train_dataloader", "train_cfg", "optim_wrapper"), "train")
    _check_batches(cfg, ("train_dataloader", "val_dataloader"))
    _check_optimizer(cfg.optim_wrapper, cfg.get("default_scope") or "mmengine")
    cfg.launcher = options.launcher
    if options.work_dir is not None:
        cfg.work_dir = str(options.work_dir)
    elif not cfg.get("work_dir"):
        cfg.work_dir = str(Path("work_dirs", Path(options.config.removesuffix(".py")).name))
    if options.data:
        asked = _values(cfg, options.cfg_options)
        val = own.Source(*options.val_data) if options.val_data else None
        notes.append(f"classes: {', '.join(own.use(cfg, own.Source(*options.data), val))}")
        replaced = [key for key, value in _values(cfg, options.cfg_options).items() if value != asked[key]]
        notes += [f"--data: `{key}` of --cfg-options is replaced by what the data give" for key in replaced]
    elif options.val_data:
        raise ConfigError("--val-data goes with --data: both must have the same classes.")
    if options.seed is not None or options.deterministic:
        cfg.randomness = {**cfg.get("randomness", {}), **_given(seed=options.seed, deterministic=options.deterministic)}
    if options.amp:
        cfg.optim_wrapper.update(type="ddq_port.AmpOptimWrapper", **_AMP[options.amp])
    if options.fast:
        _compute_fast(cfg, options.config)
        _fuse_steps(cfg.optim_wrapper.get("optimizer"))
        notes.append("--fast: the preflight compares the legacy numerics, of which these are another form")
    if options.auto_scale_lr:
        _scale_lr(cfg, options.config)
    if options.tensorboard:
        _add_tensorboard(cfg)
    notes += _add_hooks(cfg, options.ema)
    notes += begin(cfg, options)
    check_data(cfg, ("train_dataloader", "val_dataloader"), ("val_evaluator",))
    return cfg, notes


def for_evaluation(options: EvalOptions) -> tuple[Config, list[str]]:
    """Return the config of an evaluation and what its user should know, in lines.

    Raises:
        ConfigError: as :func:`for_training`.
    """
    cfg, notes = _loaded(options.config, options.cfg_options)
    _need(cfg, options.config, ("model", "test_dataloader", "test_cfg", "test_evaluator"), "evaluate")
    _check_batches(cfg, ("test_dataloader",))
    cfg.launcher = options.launcher
    cfg.work_dir = str(options.work_dir)
    cfg.load_from, cfg.resume = options.checkpoint, False
    if options.fast:
        _compute_fast(cfg, options.config)
    coco = [evaluator for evaluator in _evaluators(cfg.test_evaluator) if evaluator.get("type") == "CocoMetric"]
    if not coco and (options.classwise or options.predictions):
        raise ConfigError("--classwise and --out need a CocoMetric in test_evaluator; the config has none.")
    for evaluator in coco:
        evaluator.update(
            _given(classwise=options.classwise, outfile_prefix=options.predictions and str(options.predictions))
        )
    if options.show_dir is not None:
        hook = cfg.setdefault("default_hooks", {}).setdefault("visualization", dict(type="DetVisualizationHook"))
        hook.update(draw=True, test_out_dir=str(options.show_dir.absolute()))
    check_data(cfg, ("test_dataloader",), ("test_evaluator",))
    return cfg, notes


def for_export(name: str, pairs: tuple[str, ...]) -> tuple[Config, list[str]]:
    """Return a config whose model has fast numerics, and what its user should know, in lines.

    Raises:
        ConfigError: if there is none of this name, or its model has no fast numerics.
    """
    cfg, notes = _loaded(name, pairs)
    _need(cfg, name, ("model",), "export")
    _compute_fast(cfg, name, "ddq-export")
    return cfg, notes


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None and value is not False}


def load(config: str) -> Config:
    """Read a config by the path of its file or by its installed name.

    Raises:
        ConfigError: if there is none, or it cannot be executed.
    """
    path = Path(config)
    if not path.is_file():
        try:
            path = configs.path(config)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{config} is neither a file nor an installed config; those are {', '.join(configs.names())}."
            ) from error
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is a program: whatever it raises
        text = str(error).strip().splitlines() or [""]
        raise ConfigError(f"The config {config} cannot be read ({type(error).__name__}: {text[-1]}).") from error


def _loaded(config: str, pairs: tuple[str, ...]) -> tuple[Config, list[str]]:
    cfg = load(config)
    # mmengine gives a visualizer of the same name to every run of a process, and it writes into the first one's folder
    (cfg.get("visualizer") or {}).pop("name", None)
    if not pairs:
        return cfg, []
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ConfigError(f"--cfg-options {wrong[0]} sets nothing; write KEY=VALUE, as in train_cfg.max_epochs=1.")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    values = parser.parse_args(["--cfg-options", *pairs]).cfg_options
    unknown = [key for key in values if not _has(cfg, key)]
    try:
        cfg.merge_from_dict(values)
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise ConfigError(f"--cfg-options does not fit the config ({type(error).__name__}: {error}).") from error
    return cfg, [f"--cfg-options: `{key}` is not in the config so far; check its spelling" for key in unknown]


def _has(cfg: Any, key: str) -> bool:
    return _value(cfg, key) is not _ABSENT


def _value(cfg: Any, key: str) -> Any:
    at = cfg
    for name in key.split("."):
        if isinstance(at, list | tuple) and name.isdigit() and int(name) < len(at):
            at = at[int(name)]
        elif isinstance(at, Mapping | Config) and name in at:
            at = at[name]
        else:
            return _ABSENT
    return at


def _values(cfg: Config, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that `--cfg-options` names, as they are in a config."""
    return {key: _value(cfg, key) for key in (pair.partition("=")[0] for pair in pairs)}


def _need(cfg: Config, config: str, keys: tuple[str, ...], verb: str) -> None:
    lacking = [key for key in keys if not cfg.get(key)]
    if lacking:
        raise ConfigError(f"The config {config} has no {lacking[0]}; expected {', '.join(keys)} to {verb}.")


def _check_batches(cfg: Config, dataloaders: tuple[str, ...]) -> None:
    for name in dataloaders:
        for key, least in (("batch_size", 1), ("num_workers", 0)):
            value = (cfg.get(name) or {}).get(key, least)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name}.{key} is {value!r}; expected a whole number of at least {least}.")


def _check_optimizer(optim_wrapper: Any, scope: str) -> None:
    """Build the optimizer for a parameter of its own, as mmengine will for those of the model."""
    import torch
    from mmengine.optim import OPTIMIZERS
    from mmengine.registry import DefaultScope

    optimizer = optim_wrapper.get("optimizer") if isinstance(optim_wrapper, Mapping) else None
    if not isinstance(optimizer, Mapping) or optim_wrapper.get("constructor") not in (None, *_CONSTRUCTORS):
        return
    try:
        with DefaultScope.overwrite_default_scope(scope):
            OPTIMIZERS.build(dict(optimizer, params=[torch.nn.Parameter(torch.zeros(1))]))
    except Exception as error:  # whatever an optimizer says of its settings
        given = ", ".join(f"{key}={value!r}" for key, value in optimizer.items())
        said = str(error.args[0] if error.args else error).partition(". Please check")[0]
        raise ConfigError(f"optim_wrapper.optimizer ({given}) cannot be made: {said}.") from error


def _compute_fast(cfg: Config, config: str, asked: str = "--fast") -> None:
    kind = cfg.model.get("type")
    if kind != _WITH_FAST_NUMERICS:
        raise ConfigError(f"{asked}: the model of {config} is {kind}; only {_WITH_FAST_NUMERICS} has fast numerics.")
    cfg.model.numerics = "fast"


def _fuse_steps(optimizer: Any) -> None:
    """Let the optimizer take its steps in few calls, where there is one that does and the config does not say how."""
    if isinstance(optimizer, Mapping) and not {"fused", "foreach", "capturable", "differentiable"} & set(optimizer):
        optimizer.update(type=_FUSED.get(optimizer["type"], optimizer["type"]))


def _scale_lr(cfg: Config, config: str) -> None:
    if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
        raise ConfigError(
            f"--auto-scale-lr: {config} does not say for which batch its learning rate is; set "
            "auto_scale_lr.base_batch_size (GPUs x images)."
        )
    cfg.auto_scale_lr.enable = True


def _add_tensorboard(cfg: Config) -> None:
    if not any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        raise ConfigError("--tensorboard needs the package tensorboard; `pip install tensorboard`.")
    visualizer = cfg.setdefault("visualizer", dict(type="DetLocalVisualizer"))
    backends = list(visualizer.get("vis_backends") or [dict(type="LocalVisBackend")])
    if not any(backend["type"] == "TensorboardVisBackend" for backend in backends):
        backends.append(dict(type="TensorboardVisBackend"))
    visualizer.vis_backends = backends


def _add_hooks(cfg: Config, ema: float | None) -> list[str]:
    """Append the hooks of every training, and the running average, unless the config has them."""
    hooks = list(cfg.get("custom_hooks") or [])
    names = {str(hook.get("type", "")).rpartition(".")[2] for hook in hooks if isinstance(hook, Mapping)}
    notes = []
    wanted = [name for name in HOOKS if name not in names]
    loop = cfg.train_cfg.get("type", _LOOPS[0])
    if loop not in _LOOPS and _EXACT_RESUME in wanted:
        wanted.remove(_EXACT_RESUME)
        notes.append(
            f"train_cfg.type is {loop}, of which {_EXACT_RESUME} does not know how to resume exactly; left out"
        )
    hooks += [dict(type=f"ddq_port.{name}") for name in wanted]
    if ema is not None and "EMAHook" in names:
        notes.append("--ema: the config has an EMAHook, which stays as it is")
    elif ema is not None:
        hooks.append(dict(type="EMAHook", ema_type="ExpMomentumEMA", momentum=ema, update_buffers=True, priority=49))
    cfg.custom_hooks = hooks
    return notes


def check_data(cfg: Config, dataloaders: tuple[str, ...], evaluators: tuple[str, ...]) -> None:
    """Refuse a config whose annotation files are not there.

    Raises:
        ConfigError: naming the first one.
    """
    files = [(name, file) for name in dataloaders for file in annotations((cfg.get(name) or {}).get("dataset"))]
    for name in evaluators:
        local = [evaluator for evaluator in _evaluators(cfg.get(name)) if not evaluator.get("backend_args")]
        files += [(name, evaluator["ann_file"]) for evaluator in local if evaluator.get("ann_file")]
    for name, file in files:
        if "://" not in file and not Path(file).is_file():
            raise ConfigError(
                f"The annotation file {file} of {name} is not there; set it in the config or by --cfg-options."
            )


def annotations(dataset: Any) -> Iterator[str]:
    """Yield the annotation files of a data set's config, wrapped ones included."""
    if not isinstance(dataset, Mapping):
        return
    if dataset.get("ann_file") and not dataset.get("backend_args"):  # of another store than the local disk
        root, file = dataset.get("data_root") or "", dataset["ann_file"]
        yield file if "://" in file else str(Path(root, file))
    yield from annotations(dataset.get("dataset"))
    for part in dataset.get("datasets") or ():
        yield from annotations(part)


def _evaluators(evaluator: Any) -> list[Any]:
    return list(evaluator) if isinstance(evaluator, list | tuple) else [evaluator] if evaluator else []
