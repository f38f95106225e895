"""Deformable DETR of MMDetection 3.x, small."""
sampling = dict(embed_dims=32, num_heads=4, batch_first=True)
ffn = dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.1)
model = dict(
    type="DeformableDETR",
    num_queries=20,
    num_feature_levels=4,
    with_box_refine=False,
    as_two_stage=False,
    backbone=dict(
        type="ResNet", depth=18, base_channels=8, num_stages=4, out_indices=(1, 2, 3), frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, style="pytorch",
    ),
    neck=dict(
        type="ChannelMapper", in_channels=[16, 32, 64], kernel_size=1, out_channels=32, act_cfg=None,
        norm_cfg=dict(type="GN", num_groups=8), num_outs=4,
    ),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=sampling, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=3, return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=32, num_heads=4, dropout=0.1, batch_first=True),
            cross_attn_cfg=sampling,
            ffn_cfg=ffn,
        ),
        post_norm_cfg=None,
    ),
    positional_encoding=dict(num_feats=16, normalize=True, offset=-0.5),
    bbox_head=dict(
        type="DeformableDETRHead", num_classes=7, embed_dims=32, sync_cls_avg_factor=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="FocalLossCost", weight=2.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=20),
)  # fmt: skip
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.0001),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(
        custom_keys=dict(
            backbone=dict(lr_mult=0.1), sampling_offsets=dict(lr_mult=0.1), reference_points=dict(lr_mult=0.1)
        )
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=50, val_interval=1)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=50, by_epoch=True, milestones=[40], gamma=0.1)]
