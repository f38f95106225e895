"""With which weights a training begins, and at which place."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from ddq_port.hooks.checkpoint_files import LAST_COMPLETE
from ddq_port.training.loading import finite, weights
from ddq_port.training.settings.options import AUTO, ConfigError, TrainOptions


def begin(cfg: Config, options: TrainOptions) -> list[str]:
    """Say in `cfg` with which weights and at which place the training begins."""
    notes = _origin(cfg, options)
    begins_with = origin(cfg)
    if begins_with and "://" not in begins_with:
        file, resumed = Path(begins_with), bool(cfg.get("resume"))
        if resumed:
            weights.check_resumable(file)
        finite.check(file, weights.read(file), resumed)
    if begins_with and not options.partial:
        weights.without_pretrained(cfg.model)
        if options.backbone_weights:
            notes.append("--backbone-weights: not read, the checkpoint holds the backbone, too")
    elif options.backbone_weights:
        if "backbone" not in cfg.model:
            raise ConfigError("--backbone-weights: the model has no backbone.")
        cfg.model.backbone.update(weights.backbone_init(cfg.model.backbone, options.backbone_weights))
    weights.check_pretrained(cfg.model)
    return notes


def _origin(cfg: Config, options: TrainOptions) -> list[str]:
    """Decide between resuming, weights to load, and neither."""
    given = options.resume if options.resume != AUTO else None
    if given and options.load_from:
        raise ConfigError("--resume CKPT and --load-from exclude each other; --resume alone goes with --load-from.")
    if options.override_schedule and options.resume is None and not cfg.get("resume"):
        raise ConfigError("--override-schedule goes with --resume: without it the schedule is that of the config.")
    folder = Path(cfg.work_dir)
    last = resumable(folder)
    named = given or (cfg.get("load_from") if cfg.get("resume") and options.resume is None else None)
    _keep_checkpoints(folder, options.resume is not None or bool(cfg.get("resume")), named, last)
    if options.load_from:
        cfg.load_from = options.load_from
    if given or (options.resume == AUTO and last is not None):
        cfg.resume, cfg.load_from = True, given
    elif options.resume == AUTO:
        return [f"--resume: no checkpoint in {folder} yet, the training begins"]
    return []


def _keep_checkpoints(folder: Path, goes_on: bool, named: str | None, last: Path | None) -> None:
    """Refuse a work dir whose checkpoints are not those of the training that goes on; they would be overwritten."""
    there = sorted(folder.glob("*.pth")) if folder.is_dir() else []
    if not there or (Path(named).absolute().parent == folder.absolute() if named else goes_on and last is not None):
        return
    what = f"{folder} holds checkpoints of a training ({there[0].name})"
    if not goes_on:
        raise ConfigError(f"{what}; pass --resume to go on with it or choose another --work-dir.")
    why = f"and not {named}" if named else "none of which can be resumed"
    raise ConfigError(f"{what}, {why}; choose another --work-dir.")


def origin(cfg: Config) -> str | None:
    """Return the checkpoint that mmengine will begin with; None if there is none."""
    if cfg.get("load_from"):
        return str(cfg.load_from)
    last = resumable(Path(cfg.work_dir)) if cfg.get("resume") else None
    return last and str(last)


def resumable(work_dir: Path) -> Path | None:
    """Return the checkpoint that a work dir is resumed from, None if it has none.

    That is the one mmengine noted last, or `last_complete.pth` of `ExactResumeHook` if a kill left no such note.
    """
    note = work_dir / "last_checkpoint"
    named = Path(note.read_text().strip() or ".") if note.is_file() else Path()
    return next((path for path in (named, work_dir / LAST_COMPLETE) if path.is_file()), None)
