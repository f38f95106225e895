"""What `ddq-train demo` does: draw a data set, train on it, evaluate, and show what came out."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import Config

from ddq_port import configs
from ddq_port.data import own, shapes
from ddq_port.training import run
from ddq_port.training.endings import exit_codes, logs_on_stderr
from ddq_port.training.output import curves, pictures
from ddq_port.training.output.console import NOT_SO
from ddq_port.training.settings.options import ConfigError, TrainOptions
from legacy_adapters.ground.console import DONE, message
from legacy_adapters.ground.words import counted

CONFIG = "ddq-detr-4scale_tiny_shapes"
#: Box AP that the demo must reach in the steps of its config.
EXPECTED_AP = 0.80
TRAINING_IMAGES, VALIDATION_IMAGES = 3000, 240
_SIGNS = {
    "coco/bbox_mAP_50": "AP50",
    "coco/bbox_mAP_75": "AP75",
    "coco/bbox_mAP_s": "small",
    "coco/bbox_mAP_m": "medium",
    "coco/bbox_mAP_l": "large",
}


@dataclass(frozen=True)
class Settings:
    """What to do.

    Attributes:
        work_dir: folder for everything; must not exist or be empty.
        seed: of the training. The images are the same for all.
        steps: of the training; None takes the config's.
        threads: of torch; other numbers give other last bits.
        load_from: weights to begin with.
        fast: whether to compute with fast numerics.
    """

    work_dir: Path
    seed: int = 0
    steps: int | None = None
    threads: int = 2
    load_from: Path | None = None
    fast: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        ap: box AP on the validation images, in [0, 1].
        expected: what it must be at least; None expects nothing.
        aps: that of every validation, by step.
        metrics: all that COCO's evaluation tells, by mmdet's names.
        steps: training steps.
        seconds: from the first to the last, validations included.
        first_loss: of step 1.
        last_loss: of the last step.
        losses_sha256: of the losses of all steps; the same seed, threads and machine give the same.
        files: what was written, by what it is.
    """

    ap: float
    expected: float | None
    aps: dict[int, float]
    metrics: dict[str, float]
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    losses_sha256: str
    files: dict[str, str]

    @property
    def reached(self) -> bool:
        """Tell whether the AP is what it must be."""
        return self.expected is None or self.ap >= self.expected

    def lines(self) -> list[str]:
        """Say it in lines; the first is the verdict."""
        wanted = "" if self.expected is None else f", expected at least {self.expected:.2f}"
        verdict = "TRAINED" if self.expected is None else "REACHED" if self.reached else "MISSED"
        shown = [f"{sign} {self.metrics[key]:.3f}" for key, sign in _SIGNS.items() if self.metrics.get(key, -1) >= 0]
        return [
            f"{verdict} AP {self.ap:.3f}{wanted}, after {self.steps} steps in {self.seconds:.0f} s",
            "  ".join(shown),
            f"loss {self.first_loss:.4g} -> {self.last_loss:.4g}, all steps sha256 {self.losses_sha256[:16]}",
            *(f"{what:<12} {file}" for what, file in self.files.items()),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return dict(asdict(self), reached=self.reached)


def command(*, as_json: bool, quiet: bool, verbose: bool, **settings: Any) -> int:
    """Run the demo, print what came out and return the exit code.

    Args:
        as_json: print JSON.
        quiet: print nothing but the outcome and errors.
        verbose: print mmengine's log instead of the progress.
        **settings: fields of :class:`Settings`.
    """
    with exit_codes(), logs_on_stderr(quiet, verbose):
        outcome = demonstrate(Settings(**settings), quiet, progress=not (quiet or verbose))
    click.echo(json.dumps(outcome.as_dict(), indent=1, sort_keys=True) if as_json else "\n".join(outcome.lines()))
    return DONE if outcome.reached else NOT_SO


def demonstrate(settings: Settings, quiet: bool = True, progress: bool = False) -> Outcome:
    """Make the data, train, evaluate and draw; everything goes into the work dir.

    Args:
        settings: what to do.
        quiet: say nothing.
        progress: say how far the training is.

    Raises:
        ConfigError: if the work dir is not empty.
        ddq_port.training.loading.weights.WeightsError: if ``load_from`` does not fit.
        OSError: if something cannot be written.
    """
    folder = settings.work_dir
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; choose another --work-dir for the demo.")

    def say(text: str) -> None:
        if not quiet:
            message(text)

    torch.set_num_threads(settings.threads)
    data = folder / "data"
    say(f"drawing {TRAINING_IMAGES} images to train on and {VALIDATION_IMAGES} to validate on")
    write_data(data)
    cfg = config(data, settings.steps)
    cfg.val_evaluator.outfile_prefix = str(folder / "val_predictions")
    file = folder / f"{CONFIG}.py"
    cfg.dump(file)
    steps = cfg.train_cfg.max_iters
    say(f"training for {steps} steps with {counted(settings.threads, 'thread')}")
    load_from = settings.load_from and str(settings.load_from)
    options = TrainOptions(str(file), folder, load_from=load_from, seed=settings.seed, deterministic=True, fast=settings.fast)
    began = time.monotonic()
    trained = run.train(options, check=False, quiet=True, progress=progress)
    seconds = time.monotonic() - began
    return _outcome(settings, trained, cfg, seconds)


def draw_data(folder: Path) -> int:
    """Do what `ddq-train shapes` does and return the exit code: draw the images, whole or not at all."""
    if all((folder / "annotations" / f"{name}.json").is_file() for name in ("train", "val")):
        click.echo(f"{folder} holds the images already")
        return DONE
    with exit_codes():
        if folder.exists():
            raise ConfigError(f"{folder} exists and holds something else; choose another FOLDER for the images.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            write_data(Path(place, folder.name))
            Path(place, folder.name).rename(folder)
    click.echo(f"drew {TRAINING_IMAGES} images to train on and {VALIDATION_IMAGES} to validate on into {folder}")
    return DONE


def write_data(folder: Path, classes: tuple[str, ...] = shapes.CLASSES) -> None:
    """Write the demo's images: `train` and `val`.

    Raises:
        FileExistsError: if ``folder`` exists.
        OSError: if it cannot be written.
    """
    shapes.write(
        folder,
        (shapes.Split("train", TRAINING_IMAGES, 0, classes), shapes.Split("val", VALIDATION_IMAGES, 1, classes)),
    )


def config(data: Path, steps: int | None = None) -> Config:
    """Return the demo's config for a data set that :func:`write_data` wrote.

    Args:
        data: its folder.
        steps: how long to train, at least 2; warm-up and decay of the learning rate are fitted. None takes the
            config's.
    """
    cfg = configs.load(CONFIG)
    train, val = (own.Source(data / "annotations" / f"{name}.json", data / name) for name in ("train", "val"))
    own.use(cfg, train, val)
    if steps is not None:
        warmup = max(1, min(cfg.param_scheduler[0].end, steps // 10))
        cfg.param_scheduler[0].end = warmup
        cfg.param_scheduler[1].update(begin=warmup, end=steps, T_max=steps - warmup)
        cfg.train_cfg.update(max_iters=steps, val_interval=max(1, steps // 4))
        cfg.default_hooks.checkpoint.interval = steps
    cfg.default_hooks.logger.interval = cfg.log_processor.window_size = 1  # the loss of every step, as it was
    return cfg


def losses_sha256(losses: list[float]) -> str:
    """Return the SHA-256 of losses, of every bit of them."""
    return hashlib.sha256("\n".join(loss.hex() for loss in losses).encode()).hexdigest()


def _outcome(settings: Settings, trained: run.Outcome, cfg: Config, seconds: float) -> Outcome:
    folder, logged = settings.work_dir, curves.read(settings.work_dir)
    losses = [float(loss) for loss in logged.training["loss"].values]
    ap, validated = trained.metrics["coco/bbox_mAP"], logged.validation["coco/bbox_mAP"]
    curves.draw(logged, folder / "curves.png", f"ddq-train demo, seed {settings.seed}: AP {ap:.3f}")
    predictions = folder / "val_predictions.bbox.json"
    data = folder / "data"
    pictures.draw(data / "annotations" / "val.json", data / "val", predictions, folder / "predictions.png")
    return Outcome(
        ap=ap,
        expected=EXPECTED_AP if settings.steps is None else None,
        aps=dict(zip(validated.steps, validated.values)),
        metrics=trained.metrics,
        steps=cfg.train_cfg.max_iters,
        seconds=seconds,
        first_loss=losses[0],
        last_loss=losses[-1],
        losses_sha256=losses_sha256(losses),
        files=dict(
            predictions=str(folder / "predictions.png"),
            curves=str(folder / "curves.png"),
            checkpoint=_below(folder, trained.checkpoint),
            config=str(folder / f"{CONFIG}.py"),
            data=str(data),
            detections=str(predictions),
            log=_below(folder, trained.log),
        ),
    )


def _below(folder: Path, file: str | None) -> str:
    """Return the path of a file in ``folder`` as that was given; mmengine makes all paths absolute."""
    return str(folder / Path(file).relative_to(folder.absolute())) if file else "none"
