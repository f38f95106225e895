# DDQ FCN at a small width: every part of the r50 model, a ResNet-50 of 4 channels.
_base_ = ["ddq_fcn.py"]

model = dict(
    backbone=dict(base_channels=4, init_cfg=None),
    neck=[
        dict(
            type="FPN",
            in_channels=[16, 32, 64, 128],
            out_channels=64,
            start_level=1,
            add_extra_convs="on_input",
            num_outs=5,
        )
    ],
    bbox_head=dict(num_classes=3, in_channels=64, feat_channels=64, shuffle_channels=16),
    test_cfg=dict(max_per_img=50),
)
