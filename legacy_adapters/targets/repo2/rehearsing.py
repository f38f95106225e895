"""A training of both sides on drawn images in which all numbers are the same; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

from legacy_adapters.family import LEGACY

#: Data and schedule of the official side, which are merged into a config: those of ``ddq_port/configs/_base_/shapes.py``.
SHAPES = str(Path(__file__).parent / "shapes.py")
#: Steps that the configs have.
STEPS = 600


def settings(side: str, steps: int) -> Tuple[str, ...]:
    """Fit both steps of the schedule, validation and checkpoints to a number of steps."""
    drops = f"[{steps * 2 // 3},{steps * 9 // 10}]"
    if side == LEGACY:
        return (
            f"runner.max_iters={steps}",
            f"lr_config.step={drops}",
            f"evaluation.interval={steps}",
            f"checkpoint_config.interval={steps // 2}",
        )
    return (
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={steps}",
        f"param_scheduler.1.milestones={drops}",
        f"param_scheduler.1.end={steps}",
        f"default_hooks.checkpoint.interval={steps // 2}",
        "default_hooks.logger.interval=1",
        "log_processor.window_size=1",
    )
