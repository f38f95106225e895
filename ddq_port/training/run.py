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
from ddq_port.training import check_data, config, launch, preflight, weights
from ddq_port.training.config import TrainOptions
from ddq_port.training.console import DONE, message
from ddq_port.training.endings import exit_codes, logs_on_stderr, told_in_log


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
        steps, passes = _counted(self.iterations, "iteration"), _counted(self.epochs, "epoch")
        told = [f"TRAINED {steps}, {passes} -> {self.checkpoint or 'no checkpoint'}"]
        told += [f"{name:<22} {value:.4g}" for name, value in self.metrics.items()]
        if self.best:
            told.append(f"best {self.best_score:.4g} -> {self.best}")
        return [*told, f"log {self.log}"]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def command(*, as_json: bool, quiet: bool, preflight: bool | None, **settings: Any) -> int:
    """Train and print the outcome. Return the exit code.

    Args:
        as_json: print JSON.
        quiet: print nothing but the outcome and errors.
        preflight: as in :func:`ddq_port.training.preflight.plan`.
        **settings: fields of :class:`TrainOptions`.
    """
    options = TrainOptions(**settings)
    with exit_codes(), logs_on_stderr(quiet):
        outcome = train(options, preflight, quiet)
    if launch.rank(options.launcher) == 0:
        shown = json.dumps(outcome.as_dict(), indent=1, sort_keys=True) if as_json else "\n".join(outcome.lines())
        click.echo(shown)
    return DONE


def train(options: TrainOptions, check: bool | None = None, quiet: bool = False, hooks: Sequence[Hook] = ()) -> Outcome:
    """Train as the options say, with further hooks; every process of a launch calls this.

    Raises:
        config.ConfigError, weights.WeightsError, launch.LaunchError: if it cannot begin.
        check_data.DataError, preflight.PreflightError: if it must not begin.
    """
    launch.check(options.launcher)
    first = launch.rank(options.launcher) == 0

    def say(text: str) -> None:
        if first and not quiet:
            message(text)

    cfg, notes = config.for_training(options)
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
    origin = config.origin(cfg)
    if first:
        for line in _provenance(origin, options.backbone_weights, plan.text, passed, Path(runner.work_dir)):
            runner.logger.info(line)
    if origin:
        runner.register_hook(weights.FittingWeightsHook(origin, options.partial), "LOWEST")
    for hook in hooks:
        runner.register_hook(hook)
    with told_in_log(runner):
        runner.train()
    return _outcome(runner, passed)


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
