"""The official DDQ FCN, carried to this toolkit's own."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import Family, Side
from legacy_adapters.targets.ddq_main import models
from legacy_adapters.targets.ddq_main.checkout import CHECKOUT

from .rules import RULES

_FOLDER = Path(__file__).parent
#: Variant -> config of the checkout.
_LEGACY = dict(r50_12e="ddq_fcn_r50_1x", r50_36e="ddq_fcn_r50_3x_detr_aug")

FAMILY = Family(
    name="ddq_fcn",
    variants=models.variants(_FOLDER, _LEGACY),
    legacy=Side("the official code", Path("legacy.py"), checkout=CHECKOUT),
    new=models.SIDE,
    rules=RULES,
    exclusions=models.EXCLUSIONS,
    class_rows={name: kind for name, kind in models.HEAD_CLASS_ROWS.items() if name.startswith("bbox_head")},
    versions={"bbox_head": 1},  # without it the head loads weights of aux_conv_cls as those of conv_cls
    markers=("neck.0.lateral_convs.0.conv.weight", "bbox_head.aux_conv_objectness.0.weight"),
    seeding=models.HEAD_SEEDING,
    batch_divisor=32,
    layouts=Path("layouts"),
    demo=Path("goldens/tiny.npz"),
    rehearsals=models.rehearsals(_FOLDER, _LEGACY),
)
