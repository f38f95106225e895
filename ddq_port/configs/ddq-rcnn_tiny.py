# A small DDQ R-CNN for tests and demos: every part of the r50 model at a small width, a ResNet-50 of 4 channels.
_base_ = ["ddq-rcnn_r50_8xb2-12e_coco.py"]

_classes, _width = 3, 64
model = dict(
    backbone=dict(base_channels=4, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=_width),
    rpn_head=dict(
        num_classes=_classes, in_channels=_width, feat_channels=_width, shuffle_channels=16
    ),
    roi_head=dict(
        proposal_feature_channel=_width,
        bbox_roi_extractor=dict(out_channels=_width),
        bbox_head=[
            dict(
                type="DIIHead",
                num_classes=_classes,
                num_ffn_fcs=2,
                num_heads=8,
                num_cls_fcs=1,
                num_reg_fcs=3,
                feedforward_channels=128,
                in_channels=_width,
                dropout=0.0,
                ffn_act_cfg=dict(type="ReLU", inplace=True),
                dynamic_conv_cfg=dict(
                    type="DynamicConv",
                    in_channels=_width,
                    feat_channels=16,
                    out_channels=_width,
                    input_feat_shape=7,
                    act_cfg=dict(type="ReLU", inplace=True),
                    norm_cfg=dict(type="LN"),
                ),
                loss_bbox=dict(type="ddq_port.L1Loss", loss_weight=5.0),
                loss_iou=dict(type="ddq_port.GIoULoss", loss_weight=2.0),
                loss_cls=dict(type="ddq_port.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder",
                    clip_border=False,
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[0.5, 0.5, 1.0, 1.0],
                ),
            )
            for _ in range(2)
        ],
    ),
    test_cfg=dict(rcnn=dict(max_per_img=50)),
)
