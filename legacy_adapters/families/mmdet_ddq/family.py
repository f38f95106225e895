"""MMDetection 3.3.0's own DDQ-DETR, carried to this toolkit's."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import Family, Side
from legacy_adapters.ground.packages import MMDET
from legacy_adapters.targets import ddq_detr as target

FAMILY = Family(
    name="mmdet_ddq",
    variants=target.variants("ddq"),
    legacy=Side("mmdet 3.3.0", Path("legacy.py"), packages=("mmdet", "mmcv", "mmengine"), needs=MMDET),
    new=target.SIDE,
    rules=target.rules,
    exclusions=target.OWN_RECORDS,
    class_rows=target.CLASS_ROWS,
    markers=target.MARKERS,
    seeding=target.SEEDING,
    layouts=target.LAYOUTS,
)
