"""The official DDQ-DETR, carried to this toolkit's own."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

from ddq_port import configs
from legacy_adapters.family import Family, Rehearsal, Side, Variant
from legacy_adapters.targets import ddq_detr as target

from .checkout import CHECKOUT
from .exclusions import EXCLUSIONS

_CONFIGS = "projects/configs/ddq_detr"
#: The model that `ddq-train demo` trains; its overrides are those of a whole training.
_SHAPES = Variant(
    "tiny_shapes",
    legacy=dict(
        config=f"{_CONFIGS}/ddq-detr-4scale_r50_8xb2-12e_coco.py",
        overrides=str(Path(__file__).parent / "configs" / "legacy" / "tiny_shapes.py"),
    ),
    new=dict(config=str(configs.path("ddq-detr-4scale_tiny_shapes"))),
    sizes=((93, 115), (131, 121), (77, 157)),
    settings=dict(decoder_layers=3),
)



def _settings(side: str, steps: int) -> Tuple[str, ...]:
    """Fit warm-up, decay, validations and checkpoints to a number of steps, as `ddq-train demo` does."""
    warmup, middle = max(1, min(50, steps // 10)), steps // 2
    return (
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={max(1, steps // 4)}",
        f"param_scheduler.0.end={warmup}",
        f"param_scheduler.1.begin={warmup}",
        f"param_scheduler.1.end={steps}",
        f"param_scheduler.1.T_max={steps - warmup}",
        f"default_hooks.checkpoint.interval={middle // 3 if middle % 3 == 0 else middle}",
        "default_hooks.logger.interval=1",
        "log_processor.window_size=1",
    )


FAMILY = Family(
    name="ddq_detr",
    variants=(*target.variants(_CONFIGS), _SHAPES),
    legacy=Side("the official code", Path("legacy.py"), checkout=CHECKOUT, frozen_groups=True),
    new=target.SIDE,
    rules=target.rules,
    exclusions=EXCLUSIONS,
    class_rows=target.CLASS_ROWS,
    markers=target.MARKERS,
    seeding=target.SEEDING,
    layouts=target.LAYOUTS,
    demo=Path("goldens/tiny_4scale.npz"),
    rehearsals=(Rehearsal("tiny", "tiny_shapes", 900, _settings, expected_ap=0.75),),
)
