"""What seeded weights of Co-DETR need beyond the general rules; imports no torch."""

from __future__ import annotations

from legacy_adapters.family import Draw, Seeding

SEEDING = Seeding(
    draws=(
        # factors of distances
        Draw("*.scale", 0.1, 1.0, shape=()),
        # of attention that samples: places apart from each other, in cells
        Draw("*sampling_offsets.bias", 2.0),
        Draw("query_head.cls_branches*.bias", 0.1, -2.0),
        Draw("bbox_head.*.atss_cls.bias", 0.3, -1.0),
    ),
    gains={
        # less sharp than usual: behind layers of attention rounding would be too large to show an error
        "query_head.transformer.*in_proj_weight": 2.0,
        # what ends a branch of a transformer is damped
        "*output_proj.weight": 0.5,
        "*ffns.0.layers.1.weight": 0.5,
        # a softmax over many classes, of which some must have a score to be detected
        "roi_head.*.bbox_head.fc_cls.weight": 5.0,
    },
)
