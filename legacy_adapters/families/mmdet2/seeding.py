"""What seeded weights of MMDetection's detectors need beyond the general rules; imports no torch."""

from __future__ import annotations

from dataclasses import replace

from legacy_adapters.family import Draw, Seeding

SEEDING = Seeding(
    draws=(
        # factors of distances that are exponents
        Draw("*.scale", 0.1, 1.0, shape=()),
        # exponents of distances in pixels, or in multiples of some: boxes of 10 pixels or a few times as large
        Draw("bbox_head.conv_reg.bias", 0.3, 1.5),
        # boxes (centre, size) as shares of the image, which no refinement makes smaller than nothing
        Draw("*init_proposal_bboxes.weight", 0.12, (0.5, 0.5, 0.5, 0.5)),
        # of attention that samples: places apart from each other, in cells
        Draw("*sampling_offsets.bias", 2.0),
        Draw("bbox_head.cls_branches*.bias", 0.1, -2.0),
    ),
    gains={
        # less sharp than usual: behind twelve layers of attention rounding would be too large to show an error
        "bbox_head.transformer.*in_proj_weight": 2.0,
        # what ends a branch of a transformer is damped, and the boxes and classes of queries are kept apart
        "*output_proj.weight": 0.5,
        "*ffns.0.layers.1.weight": 0.5,
        "bbox_head.fc_reg.weight": 8.0,
        "bbox_head.fc_cls.weight": 3.0,
        # of blocks whose number makes features grow, so that all scores were 1
        "backbone.conv_res_block*.conv2.conv.weight": 0.3,
        # Swish halves what is given to it, a ReLU of a residual branch does not
        **dict.fromkeys(("backbone.*.conv.weight", "bbox_head.multi_level_*_convs*"), 1.5),
        **{f"neck.{part}*": 1.5 for part in ("reduce_layers", "top_down", "bottom_up", "downsamples", "out_convs")},
        "bbox_head.multi_level_conv_cls*": 2.0,
        # a softmax over many classes, of which some must have a score to be detected
        "roi_head.bbox_head*.fc_cls.weight": 5.0,
    },
)
#: Of QueryInst: its boxes are not clipped, and 2.x cannot paste the mask of one that lies outside of its image.
WITHIN_IMAGES = replace(SEEDING, gains={"roi_head.bbox_head.*.fc_reg.weight": 0.1, **SEEDING.gains})
#: Of YOLACT and SSD, whose dense heads have a softmax over many classes, of which some must have a score to be detected.
DENSE_SOFTMAX = replace(
    SEEDING, gains={**dict.fromkeys(("bbox_head.conv_cls.weight", "bbox_head.cls_convs.*.weight"), 5.0), **SEEDING.gains}
)
#: Of cascades, which average the logits of their stages.
OF_STAGES = replace(SEEDING, gains={"roi_head.bbox_head.*.fc_cls.weight": 9.0, **SEEDING.gains})
#: Of YOLOv3, whose boxes are as large as the exponential of what its last layer gives.
EXPONENTS = replace(SEEDING, gains={"bbox_head.convs_pred.*.weight": 0.3, **SEEDING.gains})
#: Of PointRend, which takes as long as it has detections: fewer of them.
FEW = replace(SEEDING, gains={"roi_head.bbox_head.fc_cls.weight": 3.0, **SEEDING.gains})
