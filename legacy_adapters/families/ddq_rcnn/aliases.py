"""Names of what has no weights, where MMDetection 3.x calls it otherwise; imports no torch."""

from __future__ import annotations

from itertools import product

from legacy_adapters.family import Alias

_STAGES, _TERMS = range(2), ("loss_cls", "pos_acc", "loss_bbox", "loss_iou")

ALIASES = (
    *(Alias(f"stage{stage}_{term}", f"s{stage}.{term}", of="loss") for stage, term in product(_STAGES, _TERMS)),
    # one module, which mmcv 1.x reaches under this name first
    Alias("roi_head.bbox_head.*.ffn.activate", "roi_head.bbox_head.*.ffn.layers.0.1"),
)
