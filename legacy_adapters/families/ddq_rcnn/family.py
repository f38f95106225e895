"""The official DDQ R-CNN, carried to this toolkit's own."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import LINEAR, PRIOR, Family, Seeding, Side
from legacy_adapters.targets.ddq_main import models
from legacy_adapters.targets.ddq_main.checkout import CHECKOUT

from .aliases import ALIASES
from .rules import RULES

_FOLDER = Path(__file__).parent
#: Variant -> config of the checkout.
_LEGACY = dict(r50_12e="ddq_rcnn_r50_1x", r50_36e="ddq_rcnn_r50_3x")

FAMILY = Family(
    name="ddq_rcnn",
    variants=models.variants(_FOLDER, _LEGACY),
    legacy=Side("the official code", Path("legacy.py"), checkout=CHECKOUT),
    new=models.SIDE,
    rules=RULES,
    exclusions=models.EXCLUSIONS,
    aliases=ALIASES,
    class_rows={
        **{name: kind for name, kind in models.HEAD_CLASS_ROWS.items() if name.startswith("rpn_head")},
        "roi_head.bbox_head.*.fc_cls.weight": LINEAR,
        "roi_head.bbox_head.*.fc_cls.bias": PRIOR,
    },
    versions={"rpn_head": 1},  # without it the head loads weights of aux_conv_cls as those of conv_cls
    markers=("rpn_head.compress.weight", "roi_head.bbox_head.0.instance_interactive_conv.dynamic_layer.weight"),
    seeding=Seeding(
        draws=models.HEAD_SEEDING.draws,
        gains={
            # a residual branch is damped; the classes of queries are kept apart
            "roi_head.bbox_head.*.ffn.layers.1.weight": 0.5,
            "roi_head.bbox_head.*.fc_cls.weight": 3.0,
        },
    ),
    batch_divisor=32,
    layouts=Path("layouts"),
    demo=Path("goldens/tiny.npz"),
    rehearsals=models.rehearsals(_FOLDER, _LEGACY),
)
