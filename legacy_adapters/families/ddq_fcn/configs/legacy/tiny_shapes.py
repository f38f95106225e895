# The model of `ddq-fcn_tiny_shapes`, merged into the official config of 12 epochs; the neck is a list there.
model = dict(
    backbone=dict(depth=18, base_channels=16, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck={"0": dict(in_channels=[16, 32, 64, 128], out_channels=64)},
    bbox_head=dict(
        num_classes=3, in_channels=64, feat_channels=64, shuffle_channles=16, num_distinct_queries=50
    ),
)
