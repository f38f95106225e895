"""The official Co-DETR, carried to this toolkit's own."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import Family, Side
from legacy_adapters.targets.co_detr.checkout import CHECKOUT

from .exclusions import ALIASES, EXCLUSIONS
from .models import CLASS_ROWS, NEW, VARIANTS
from .rules import rules
from .seeding import SEEDING

FAMILY = Family(
    name="co_detr",
    variants=VARIANTS,
    legacy=Side("the official code", Path("legacy.py"), checkout=CHECKOUT),
    new=NEW,
    rules=rules,
    exclusions=EXCLUSIONS,
    aliases=ALIASES,
    class_rows=CLASS_ROWS,
    markers=("query_head.cls_branches.0.weight", "roi_head.0.bbox_head.fc_cls.weight", "bbox_head.0.atss_cls.weight"),
    seeding=SEEDING,
    batch_divisor=1,
    layouts=Path("layouts"),
)
