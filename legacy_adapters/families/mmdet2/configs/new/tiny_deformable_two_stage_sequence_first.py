"""Deformable DETR of MMDetection 3.x in the layout of 2.x, in two stages, small."""
_base_ = "tiny_deformable_two_stage.py"
model = dict(
    type="ddq_port.DeformableDETR",
    layout="sequence_first",
    bbox_head=dict(type="ddq_port.DeformableDETRHead"),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                dict(type="FocalLossCost", weight=2.0),
                dict(type="ddq_port.NormalizedBBoxL1Cost", weight=5.0),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ]
        )
    ),
)
