"""The official DDQ-DETR, carried to this toolkit's own."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import Family, Side
from legacy_adapters.targets import ddq_detr as target

from .checkout import CHECKOUT
from .exclusions import EXCLUSIONS

FAMILY = Family(
    name="ddq_detr",
    variants=target.variants("projects/configs/ddq_detr"),
    legacy=Side("the official code", Path("legacy.py"), checkout=CHECKOUT, frozen_groups=True),
    new=target.SIDE,
    rules=target.rules,
    exclusions=EXCLUSIONS,
    class_rows=target.CLASS_ROWS,
    markers=target.MARKERS,
    seeding=target.SEEDING,
    layouts=target.LAYOUTS,
    demo=Path("goldens/tiny_4scale.npz"),
)
