"""DETR of MMDetection 2.x, narrow, but as deep as it is."""
attention = dict(type="MultiheadAttention", embed_dims=32, num_heads=4, dropout=0.1)
ffn = dict(
    type="FFN", embed_dims=32, feedforward_channels=64, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU", inplace=True)
)  # fmt: skip
model = dict(
    type="DETR",
    backbone=dict(
        type="ResNet", depth=50, base_channels=8, num_stages=4, out_indices=(3,), frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, style="pytorch",
    ),
    bbox_head=dict(
        type="DETRHead", num_classes=7, in_channels=256, num_query=20,
        transformer=dict(
            type="Transformer",
            encoder=dict(
                type="DetrTransformerEncoder", num_layers=6,
                transformerlayers=dict(
                    type="BaseTransformerLayer", attn_cfgs=[attention],
                    feedforward_channels=64, ffn_dropout=0.1, ffn_cfgs=ffn,
                    operation_order=("self_attn", "norm", "ffn", "norm"),
                ),
            ),
            decoder=dict(
                type="DetrTransformerDecoder", return_intermediate=True, num_layers=6,
                transformerlayers=dict(
                    type="DetrTransformerDecoderLayer", attn_cfgs=attention,
                    feedforward_channels=64, ffn_dropout=0.1, ffn_cfgs=ffn,
                    operation_order=("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"),
                ),
            ),
        ),
        positional_encoding=dict(type="SinePositionalEncoding", num_feats=16, normalize=True),
        loss_cls=dict(
            type="CrossEntropyLoss", bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0
        ),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            cls_cost=dict(type="ClassificationCost", weight=1.0),
            reg_cost=dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
            iou_cost=dict(type="IoUCost", iou_mode="giou", weight=2.0),
        )
    ),
    test_cfg=dict(max_per_img=20),
)  # fmt: skip
optimizer = dict(
    type="AdamW", lr=0.0001, weight_decay=0.0001,
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1, decay_mult=1.0))),
)  # fmt: skip
optimizer_config = dict(grad_clip=dict(max_norm=0.1, norm_type=2))
lr_config = dict(policy="step", step=[100])
runner = dict(type="EpochBasedRunner", max_epochs=150)
