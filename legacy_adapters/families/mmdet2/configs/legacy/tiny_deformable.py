"""Deformable DETR of MMDetection 2.x, small."""
sampling = dict(type="MultiScaleDeformableAttention", embed_dims=32, num_heads=4)
ffn = dict(
    type="FFN", embed_dims=32, feedforward_channels=64, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU", inplace=True)
)  # fmt: skip
model = dict(
    type="DeformableDETR",
    backbone=dict(
        type="ResNet", depth=18, base_channels=8, num_stages=4, out_indices=(1, 2, 3), frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, style="pytorch",
    ),
    neck=dict(
        type="ChannelMapper", in_channels=[16, 32, 64], kernel_size=1, out_channels=32, act_cfg=None,
        norm_cfg=dict(type="GN", num_groups=8), num_outs=4,
    ),
    bbox_head=dict(
        type="DeformableDETRHead", num_query=20, num_classes=7, in_channels=64, sync_cls_avg_factor=True,
        with_box_refine=False, as_two_stage=False,
        transformer=dict(
            type="DeformableDetrTransformer", two_stage_num_proposals=20,
            encoder=dict(
                type="DetrTransformerEncoder", num_layers=2,
                transformerlayers=dict(
                    type="BaseTransformerLayer", attn_cfgs=sampling,
                    feedforward_channels=64, ffn_dropout=0.1, ffn_cfgs=ffn,
                    operation_order=("self_attn", "norm", "ffn", "norm"),
                ),
            ),
            decoder=dict(
                type="DeformableDetrTransformerDecoder", num_layers=3, return_intermediate=True,
                transformerlayers=dict(
                    type="DetrTransformerDecoderLayer",
                    attn_cfgs=[dict(type="MultiheadAttention", embed_dims=32, num_heads=4, dropout=0.1), sampling],
                    
                    feedforward_channels=64, ffn_dropout=0.1, ffn_cfgs=ffn,
                    operation_order=("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
                ),
            ),
        ),
        positional_encoding=dict(type="SinePositionalEncoding", num_feats=16, normalize=True, offset=-0.5),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            cls_cost=dict(type="FocalLossCost", weight=2.0),
            reg_cost=dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
            iou_cost=dict(type="IoUCost", iou_mode="giou", weight=2.0),
        )
    ),
    test_cfg=dict(max_per_img=20),
)  # fmt: skip
optimizer = dict(
    type="AdamW", lr=2e-4, weight_decay=0.0001,
    paramwise_cfg=dict(
        custom_keys=dict(
            backbone=dict(lr_mult=0.1), sampling_offsets=dict(lr_mult=0.1), reference_points=dict(lr_mult=0.1)
        )
    ),
)  # fmt: skip
optimizer_config = dict(grad_clip=dict(max_norm=0.1, norm_type=2))
lr_config = dict(policy="step", step=[40])
runner = dict(type="EpochBasedRunner", max_epochs=50)
