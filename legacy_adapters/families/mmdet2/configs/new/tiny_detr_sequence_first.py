"""DETR of MMDetection 3.x in the layout of 2.x, small."""
_base_ = "tiny_detr.py"
model = dict(
    type="ddq_port.DETR",
    layout="sequence_first",
    bbox_head=dict(type="ddq_port.DETRHead"),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                dict(type="ClassificationCost", weight=1.0),
                dict(type="ddq_port.NormalizedBBoxL1Cost", weight=5.0),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ]
        )
    ),
)
