"""The official Co-DETR, carried to this toolkit's own."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import Family, Side
from legacy_adapters.targets.co_detr.checkout import CHECKOUT
from legacy_adapters.targets.co_detr.rules import CLASS_ROWS, MARKERS
from legacy_adapters.targets.co_detr.seeding import SEEDING

from .exclusions import ALIASES, EXCLUSIONS
from .models import NEW, REHEARSALS, VARIANTS
from .rules import rules

FAMILY = Family(
    name="co_detr",
    variants=VARIANTS,
    legacy=Side("the official code", Path("legacy.py"), checkout=CHECKOUT),
    new=NEW,
    rules=rules,
    exclusions=EXCLUSIONS,
    aliases=ALIASES,
    class_rows=CLASS_ROWS,
    markers=MARKERS,
    seeding=SEEDING,
    batch_divisor=1,
    layouts=Path("layouts"),
    rehearsals=REHEARSALS,
)
