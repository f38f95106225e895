"""Sparse R-CNN of MMDetection 3.x, small."""
model = dict(
    type="SparseRCNN",
    backbone=dict(
        type="ResNet", depth=18, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3), frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True), norm_eval=True, style="pytorch",
    ),
    neck=dict(
        type="FPN", in_channels=[8, 16, 32, 64], out_channels=32, start_level=0, add_extra_convs="on_input", num_outs=4
    ),
    rpn_head=dict(type="EmbeddingRPNHead", num_proposals=30, proposal_feature_channel=32),
    roi_head=dict(
        type="SparseRoIHead", num_stages=3, stage_loss_weights=[1, 1, 1], proposal_feature_channel=32,
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor", roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
            out_channels=32, featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=[
            dict(
                type="DIIHead", num_classes=7, num_ffn_fcs=2, num_heads=4, num_cls_fcs=1, num_reg_fcs=3,
                feedforward_channels=64, in_channels=32, dropout=0.0, ffn_act_cfg=dict(type="ReLU", inplace=True),
                dynamic_conv_cfg=dict(
                    type="DynamicConv", in_channels=32, feat_channels=8, out_channels=32, input_feat_shape=7,
                    act_cfg=dict(type="ReLU", inplace=True), norm_cfg=dict(type="LN"),
                ),
                loss_bbox=dict(type="L1Loss", loss_weight=5.0),
                loss_iou=dict(type="GIoULoss", loss_weight=2.0),
                loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder", clip_border=False, target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[0.5, 0.5, 1.0, 1.0],
                ),
            )
            for _ in range(3)
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
                        dict(type="BBoxL1Cost", weight=5.0, box_format="xyxy"),
                        dict(type="IoUCost", iou_mode="giou", weight=2.0),
                    ],
                ),
                sampler=dict(type="PseudoSampler"), pos_weight=1,
            )
            for _ in range(3)
        ],
    ),
    test_cfg=dict(rpn=None, rcnn=dict(max_per_img=30)),
)  # fmt: skip
