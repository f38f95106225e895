# DDQ R-CNN with a ResNet-50.
# Values: jshilong/DDQ, branch main, projects/configs/ddq_rcnn/ddq_rcnn_r50_1x.py.
_stages = 2
model = dict(
    type="ddq_port.DDQRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="ResNet",
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
    ),
    neck=dict(
        type="FPN",
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=0,
        add_extra_convs="on_input",
        num_outs=6,
    ),
    rpn_head=dict(
        type="ddq_port.DDQFCNRPN",
        num_distinct_queries=300,
        num_classes=80,
        in_channels=256,
        strides=(8, 16, 32, 64, 128),
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
    ),
    roi_head=dict(
        type="SparseRoIHead",
        num_stages=_stages,
        stage_loss_weights=[1] * _stages,
        proposal_feature_channel=256,
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32, 64, 128],
        ),
        bbox_head=[
            dict(
                type="DIIHead",
                num_classes=80,
                num_ffn_fcs=2,
                num_heads=8,
                num_cls_fcs=1,
                num_reg_fcs=3,
                feedforward_channels=2048,
                in_channels=256,
                dropout=0.0,
                ffn_act_cfg=dict(type="ReLU", inplace=True),
                dynamic_conv_cfg=dict(
                    type="DynamicConv",
                    in_channels=256,
                    feat_channels=64,
                    out_channels=256,
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
            for _ in range(_stages)
        ],
    ),
    train_cfg=dict(
        rpn=None,
        rcnn=[
            dict(
                assigner=dict(
                    type="HungarianAssigner",
                    match_costs=[
                        dict(type="FocalLossCost", weight=2.0),
                        dict(type="ddq_port.ShareBBoxL1Cost", weight=5.0),
                        dict(type="ddq_port.ShareIoUCost", iou_mode="giou", weight=2.0),
                    ],
                ),
                sampler=dict(type="PseudoSampler"),
                pos_weight=1,
            )
            for _ in range(_stages)
        ],
    ),
    test_cfg=dict(rpn=None, rcnn=dict(max_per_img=300)),
)
