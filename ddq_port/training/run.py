"""What `ddq-train run` does: prepare, check, let mmengine's Runner train, say what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from ddq_port import __version__
from ddq_port.hooks import SameScheduleHook
from ddq_port.training import launch
from ddq_port.training.checks import agreement, check_data, preflight
from ddq_port.training.endings import exit_codes, logs_on_stderr, told_in_log
from ddq_port.training.loading import weights
from ddq_port.training.output.progress import ProgressHook
from ddq_port.training.settings import config, start
from ddq_port.training.settings.options import TrainOptions
from legacy_adapters.ground.console import DONE, message
from legacy_adapters.ground.words import counted


@dataclass(frozen=True)
class Outcome:
    """What a training left.

    Attributes:
        work_dir: its folder.
        log: the file with everything that was logged.
        epochs: passes through the data since its beginning.
        iterations: steps since its beginning.
        checkpoint: the last one written, None if there is none.
        best: the best one by validation, None if none was chosen.
        best_score: its score.
        metrics: of the last validation.
        preflight: SHA-256 of the report of the preflight, None if there was none.
    """

    work_dir: str
    log: str
    epochs: int
    iterations: int
    checkpoint: str | None
    best: str | None
    best_score: float | None
    metrics: dict[str, float]
    preflight: str | None

    def lines(self) -> list[str]:
        """Say it in lines; the first tells that the training is done."""
        steps, passes = counted(self.iterations, "iteration"), counted(self.epochs, "epoch")
        told = [f"TRAINED {steps}, {passes} -> {self.checkpoint or 'no checkpoint'}"]
        told += [f"{name:<22} {value:.4g}" for name, value in self.metrics.items()]
        if self.best:
            told.append(f"best {self.best_score:.4g} -> {self.best}")
        return [*told, f"log {self.log}"]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


def command(*, as_json: bool, quiet: bool, verbose: bool, preflight: bool | None, **settings: Any) -> int:
    """Train and print the outcome. Return the exit code.

    Args:
        as_json: print JSON.
        quiet: print nothing but the outcome and errors.
        verbose: print mmengine's log instead of the progress.
        preflight: as in :func:`ddq_port.training.checks.preflight.plan`.
        **settings: fields of :class:`TrainOptions`.
    """
    options = TrainOptions(**settings)
    with exit_codes(), logs_on_stderr(quiet, verbose):
        outcome = train(options, preflight, quiet, progress=not (quiet or verbose))
    if launch.rank(options.launcher) == 0:
        shown = json.dumps(outcome.as_dict(), indent=1, sort_keys=True) if as_json else "\n".join(outcome.lines())
        click.echo(shown)
    return DONE


def train(
    options: TrainOptions,
    check: bool | None = None,
    quiet: bool = False,
    hooks: Sequence[Hook] = (),
    progress: bool = False,
) -> Outcome:
    """Train as the options say; every process of a launch calls this.

    Args:
        options: what to train.
        check: as in :func:`ddq_port.training.checks.preflight.plan`.
        quiet: say nothing but errors.
        hooks: further ones.
        progress: say how far the training is.

    Raises:
        options.ConfigError, weights.WeightsError, launch.LaunchError, agreement.AgreementError: if it cannot begin.
        check_data.DataError, preflight.PreflightError: if it must not begin.
    """
    launch.check(options.launcher)
    first = launch.rank(options.launcher) == 0

    def say(text: str) -> None:
        if first and not quiet:
            message(text)

    cfg, notes = config.for_training(options)
    notes += check_classes(cfg, options)  # on all ranks: one that ended alone would be waited for
    plan = preflight.plan(cfg.model, check)
    for note in (*notes, plan.text):
        say(note)
    if first and options.check_data:
        check_data.before_training(cfg, say)
    passed = None
    if first and plan.golden is not None:
        device = launch.device(options.launcher)
        say(f"running the preflight on {device} ...")
        passed = preflight.run(plan.golden, device)
        say(passed.summary)
    launch.on_cpu(cfg, options.launcher)
    runner = build(cfg)
    origin = start.origin(cfg)
    say(f"log {log_file(runner)}")
    if first:
        for line in _provenance(origin, options.backbone_weights, plan.text, passed, Path(runner.work_dir)):
            runner.logger.info(line)
    if origin:
        runner.register_hook(SameScheduleHook(options.override_schedule, origin, say))
        runner.register_hook(weights.FittingWeightsHook(origin, options.partial), "LOWEST")
    for hook in (*hooks, *([ProgressHook()] if progress and first else [])):
        runner.register_hook(hook)
    with told_in_log(runner):
        runner.train()
    return _outcome(runner, passed)


def check_classes(cfg: Config, options: TrainOptions) -> list[str]:
    """Refuse a training whose config, data and checkpoint do not have the same classes. Return notes.

    Raises:
        agreement.AgreementError: naming what differs.
    """
    loaders = {"train_dataloader": "", "val_dataloader": "val_evaluator"}
    agreed = agreement.check_config(cfg, loaders, skip_unreadable=options.check_data)
    notes = [] if options.check_data else list(agreed.notes)  # the check of the data tells the same
    origin = start.origin(cfg)
    if origin and "://" not in origin:
        notes += agreement.check_checkpoint(
            agreement.Trained.of(origin, weights.read(Path(origin))),
            agreed,
            agreement.RESUME if cfg.get("resume") else agreement.LOAD,
            partial=options.partial,
            other_names=options.allow_other_classes,
        )
    return notes


def build(cfg: Config) -> Runner:
    """Build the runner that a config asks for."""
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)


def _provenance(
    origin: str | None, backbone: Path | None, plan: str, passed: preflight.Passed | None, work_dir: Path
) -> list[str]:
    lines = [f"ddq-train {__version__}", plan]
    if passed is not None:
        lines += [passed.summary, f"preflight report {passed.write(work_dir)} sha256 {passed.sha256}"]
    for what, file in (("begins with", origin), ("backbone begins with", backbone)):
        if file is not None and Path(file).is_file():
            lines.append(f"{what} {file} sha256 {weights.sha256(Path(file))}")
    return lines


def _outcome(runner: Runner, passed: preflight.Passed | None) -> Outcome:
    hub = runner.message_hub
    scores = {name.removeprefix("val/"): buffer for name, buffer in hub.log_scalars.items() if name.startswith("val/")}
    return Outcome(
        work_dir=runner.work_dir,
        log=str(log_file(runner)),
        epochs=runner.epoch,
        iterations=runner.iter,
        checkpoint=find_latest_checkpoint(runner.work_dir),
        best=hub.get_info("best_ckpt"),
        best_score=hub.get_info("best_score"),
        metrics={name: float(buffer.current()) for name, buffer in scores.items() if not name.endswith("time")},
        preflight=passed and passed.sha256,
    )


def log_file(runner: Runner) -> Path:
    """Return the file that the runner logs to."""
    return Path(runner.log_dir, f"{runner.timestamp}.log")
