# The small width of `ddq-rcnn_tiny`, merged into the official config of 12 epochs; stages are keyed by number.
_classes, _width = 3, 64
_stage = dict(
    num_classes=_classes,
    in_channels=_width,
    feedforward_channels=128,
    dynamic_conv_cfg=dict(in_channels=_width, feat_channels=16, out_channels=_width),
)
model = dict(
    backbone=dict(base_channels=4, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=_width),
    rpn_head=dict(
        num_classes=_classes,
        in_channels=_width,
        feat_channels=_width,
        shuffle_channles=16,
        norm_cfg=dict(num_groups=8),  # as in the new side's config
    ),
    roi_head=dict(
        proposal_feature_channel=_width,
        bbox_roi_extractor=dict(out_channels=_width),
        bbox_head={"0": _stage, "1": _stage},
    ),
    test_cfg=dict(rcnn=dict(max_per_img=50)),
)
