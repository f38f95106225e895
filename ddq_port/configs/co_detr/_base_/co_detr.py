# What Co-DINO and Co-Deformable-DETR have in common, with a ResNet-50 and the levels of Co-Deformable-DETR.
# Values: Sense-X/Co-DETR, projects/configs.
_layers, _weight, _classes, _dim = 6, 2.0, 80, 256
_strides = [8, 16, 32, 64, 128]
_of_anchors = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4)
_of_proposals = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
_deformable = dict(type="MultiScaleDeformableAttention", embed_dims=_dim, dropout=0.0)
model = dict(
    type="ddq_port.CoDETR",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type="ResNet",
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
    ),
    neck=dict(
        type="ChannelMapper",
        in_channels=[512, 1024, 2048],
        kernel_size=1,
        out_channels=_dim,
        act_cfg=None,
        norm_cfg=dict(type="GN", num_groups=32),
        num_outs=4,
    ),
    rpn_head=dict(
        type="RPNHead",
        in_channels=_dim,
        feat_channels=_dim,
        anchor_generator=dict(
            type="AnchorGenerator", octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=_strides
        ),
        bbox_coder=_of_anchors,
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0 * _layers * _weight),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0 * _layers * _weight),
    ),
    query_head=dict(
        num_classes=_classes,
        sync_cls_avg_factor=True,
        transformer=dict(
            num_co_heads=2,
            encoder=dict(
                type="ddq_port.DetrTransformerEncoder",
                num_layers=6,
                transformerlayers=dict(
                    attn_cfgs=_deformable,
                    feedforward_channels=2048,
                    ffn_dropout=0.0,
                    operation_order=("self_attn", "norm", "ffn", "norm"),
                ),
            ),
            decoder=dict(
                num_layers=_layers,
                transformerlayers=dict(
                    attn_cfgs=[
                        dict(type="MultiheadAttention", embed_dims=_dim, num_heads=8, dropout=0.0),
                        _deformable,
                    ],
                    feedforward_channels=2048,
                    ffn_dropout=0.0,
                    operation_order=("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
                ),
            ),
        ),
        positional_encoding=dict(type="SinePositionalEncoding", num_feats=_dim // 2, normalize=True),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    roi_head=[
        dict(
            type="ddq_port.CoStandardRoIHead",
            bbox_roi_extractor=dict(
                type="SingleRoIExtractor",
                roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
                out_channels=_dim,
                featmap_strides=_strides[:4],
                finest_scale=112,
            ),
            bbox_head=dict(
                type="Shared2FCBBoxHead",
                in_channels=_dim,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=_classes,
                bbox_coder=_of_proposals,
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0 * _layers * _weight),
                loss_bbox=dict(type="GIoULoss", loss_weight=10.0 * _layers * _weight),
            ),
        )
    ],
    bbox_head=[
        dict(
            type="ddq_port.CoATSSHead",
            num_classes=_classes,
            in_channels=_dim,
            stacked_convs=1,
            feat_channels=_dim,
            anchor_generator=dict(
                type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=_strides
            ),
            bbox_coder=_of_proposals,
            loss_cls=dict(
                type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0 * _layers * _weight
            ),
            loss_bbox=dict(type="GIoULoss", loss_weight=2.0 * _layers * _weight),
            loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0 * _layers * _weight),
        )
    ],
    train_cfg=[
        dict(
            assigner=dict(
                type="HungarianAssigner",
                match_costs=[
                    dict(type="FocalLossCost", weight=2.0),
                    dict(type="ddq_port.NormalizedBBoxL1Cost", weight=5.0),
                    dict(type="IoUCost", iou_mode="giou", weight=2.0),
                ],
            )
        ),
        dict(
            rpn=dict(
                assigner=dict(
                    type="MaxIoUAssigner",
                    pos_iou_thr=0.7,
                    neg_iou_thr=0.3,
                    min_pos_iou=0.3,
                    match_low_quality=True,
                    ignore_iof_thr=-1,
                ),
                sampler=dict(
                    type="RandomSampler", num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False
                ),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
            rpn_proposal=dict(
                nms_pre=4000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
            ),
            rcnn=dict(
                assigner=dict(
                    type="MaxIoUAssigner",
                    pos_iou_thr=0.5,
                    neg_iou_thr=0.5,
                    min_pos_iou=0.5,
                    match_low_quality=False,
                    ignore_iof_thr=-1,
                ),
                sampler=dict(
                    type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True
                ),
                pos_weight=-1,
                debug=False,
            ),
        ),
        dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    ],
    test_cfg=[
        dict(max_per_img=100),
        dict(
            rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
            rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
        ),
        dict(
            nms_pre=1000, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100
        ),
    ],
)
