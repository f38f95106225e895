"""YOLOX of MMDetection 3.x, small."""
model = dict(
    type="YOLOX",
    backbone=dict(type="CSPDarknet", deepen_factor=0.33, widen_factor=0.125),
    neck=dict(type="YOLOXPAFPN", in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
    bbox_head=dict(type="YOLOXHead", num_classes=7, in_channels=32, feat_channels=32),
    train_cfg=dict(assigner=dict(type="SimOTAAssigner", center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65)),
)  # fmt: skip
