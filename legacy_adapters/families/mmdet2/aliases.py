"""Names of what has no weights, where MMDetection 3.x calls it otherwise; imports no torch."""

from __future__ import annotations

from itertools import product

from legacy_adapters.family import Alias

from .rules_moved import DECODER, ENCODER

#: Terms of one stage of a cascade.
_TERMS = ("loss_cls", "loss_bbox", "loss_iou", "loss_mask", "acc", "pos_acc")
#: More than any config has.
_STAGES = range(10)

ALIASES = (
    *(Alias(f"stage{stage}_{term}", f"s{stage}.{term}", of="loss") for stage, term in product(_STAGES, _TERMS)),
    # one module, which mmcv 1.x reaches under this name first
    Alias("roi_head.bbox_head.*.ffn.activate", "roi_head.bbox_head.*.ffn.layers.0.1"),
    *(Alias(f"{one}.layers.*.ffns.0.activate", f"{one}.layers.*.ffn.layers.0.1") for one in (ENCODER, DECODER)),
)
