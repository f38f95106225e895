"""What `ddq-eval` does: let mmengine's Runner test a checkpoint and say what came out."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from mmengine.config import Config

from ddq_port.hooks import StopOnNonFiniteLossHook
from ddq_port.training import launch
from ddq_port.training.checks import agreement, check_data
from ddq_port.training.endings import exit_codes, logs_on_stderr, told_in_log
from ddq_port.training.loading import finite, weights
from ddq_port.training.output.progress import ProgressHook
from ddq_port.training.run import build
from ddq_port.training.settings import config
from ddq_port.training.settings.options import ConfigError, EvalOptions
from legacy_adapters.ground.console import DONE, message
from legacy_adapters.ground.files import whole_file

_PER_CLASS = "_precision"  # what CocoMetric adds to the name of a class


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        checkpoint: the weights.
        sha256: their digest.
        images: how many were looked at.
        metrics: by their names in mmdet, such as `coco/bbox_mAP`, in [0, 1]; -1 where there is no object of that kind.
        out: COCO results file, None if not asked for.
        show_dir: folder of the images with predictions drawn in, None if not asked for.
    """

    checkpoint: str
    sha256: str
    images: int
    metrics: dict[str, float]
    out: str | None
    show_dir: str | None

    def lines(self) -> list[str]:
        """Say it in lines: the metrics, APs of single classes last, and where files are."""
        rest = {name: value for name, value in self.metrics.items() if not name.endswith(_PER_CLASS)}
        single = {name: value for name, value in self.metrics.items() if name.endswith(_PER_CLASS)}
        told = [f"{name:<22} {value:.4g}" for name, value in {**rest, **single}.items()]
        told += [f"{what} {where}" for what, where in (("predictions", self.out), ("drawn", self.show_dir)) if where]
        seen = f"{self.images} image{'s' * (self.images != 1)}"
        return [*told, f"EVALUATED {seen} with {self.checkpoint} sha256 {self.sha256[:12]}"]


def command(
    *,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    out: Path | None,
    force: bool,
    work_dir: Path | None,
    checkpoint: str,
    **more: Any,
) -> int:
    """Evaluate and print what was found. Return the exit code.

    Args:
        as_json: print JSON.
        quiet: print nothing but the result and errors.
        verbose: print mmengine's log instead of the progress.
        out: COCO results file to write, None for none.
        force: replace `out`, and add to a `show_dir` that is not empty.
        work_dir: folder that keeps mmengine's log, None to keep none.
        checkpoint: the weights.
        **more: the other fields of :class:`EvalOptions`.
    """
    with exit_codes(), logs_on_stderr(quiet, verbose), ExitStack() as stack:
        check_outputs(out, more["show_dir"], force)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddq-eval-")))
        predictions = scratch / "predictions" if out is not None else None
        options = EvalOptions(checkpoint=checkpoint, work_dir=work_dir or scratch, predictions=predictions, **more)
        found = evaluate(options, out, quiet, progress=not (quiet or verbose))
    if launch.rank(options.launcher) == 0:
        click.echo(json.dumps(asdict(found), indent=1, sort_keys=True) if as_json else "\n".join(found.lines()))
    return DONE


def check_outputs(out: Path | None, show_dir: Path | None, force: bool) -> None:
    """Refuse outputs that would replace something or have no folder.

    Raises:
        ConfigError: naming it.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"{out.absolute().parent} is not a folder; --out writes into one that exists.")
    if out is not None and out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another --out or pass --force.")
    if show_dir is not None and show_dir.exists() and any(show_dir.iterdir()) and not force:
        raise ConfigError(f"{show_dir} is not empty; choose another --show-dir or pass --force.")


def evaluate(options: EvalOptions, out: Path | None = None, quiet: bool = False, progress: bool = False) -> Evaluation:
    """Evaluate a checkpoint on the test data of a config; every process of a launch calls this.

    Args:
        options: what to evaluate.
        out: COCO results file to write, None for none.
        quiet: say nothing but errors.
        progress: say how far it is.

    Raises:
        ConfigError, weights.WeightsError, launch.LaunchError, agreement.AgreementError: if it cannot begin, or the
            weights do not fit.
    """
    launch.check(options.launcher)
    first = launch.rank(options.launcher) == 0
    file = Path(options.checkpoint)
    cfg, notes = config.for_evaluation(options)
    stored = weights.read(file)
    trained = agreement.Trained.of(options.checkpoint, stored)
    notes += _check_classes(cfg, trained, options.allow_other_classes)  # on all ranks, lest the others wait
    finite.check(file, stored)
    for note in notes if first and not quiet else ():
        message(f"note: {note}")
    if first and options.check_data:
        check_data.before_evaluation(cfg, message if not quiet else lambda text: None)
    launch.on_cpu(cfg, options.launcher)
    runner = build(cfg)
    runner.register_hook(weights.FittingWeightsHook(options.checkpoint), "LOWEST")
    if not any(isinstance(hook, StopOnNonFiniteLossHook) for hook in runner.hooks):
        runner.register_hook(StopOnNonFiniteLossHook())
    if progress and first:
        runner.register_hook(ProgressHook())
    with told_in_log(runner):
        metrics = runner.test()
    if out is not None and first:
        publish(Path(f"{options.predictions}.bbox.json"), out)
    return Evaluation(
        checkpoint=options.checkpoint,
        sha256=weights.sha256(file),
        images=len(runner.test_dataloader.dataset),
        metrics={name: float(value) for name, value in metrics.items()},
        out=out and str(out),
        show_dir=options.show_dir and str(options.show_dir),
    )


def _check_classes(cfg: Config, trained: agreement.Trained, other_names: bool) -> list[str]:
    agreed = agreement.check_config(cfg, {"test_dataloader": "test_evaluator"})
    notes = agreement.check_checkpoint(trained, agreed, agreement.EVALUATE, other_names=other_names)
    if trained.names is None:
        notes += agreement.other_than_training(cfg, agreed)
    return [*agreed.notes, *notes]


def publish(made: Path, out: Path) -> None:
    """Give a finished file its name, all at once, also from another file system.

    Raises:
        OSError: if it cannot be written.
    """
    with made.open("rb") as source, whole_file(out) as file:
        shutil.copyfileobj(source, file)
