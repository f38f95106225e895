"""DETR of MMDetection 3.x, narrow, but as deep as it is."""
attention = dict(embed_dims=32, num_heads=4, dropout=0.1, batch_first=True)
ffn = dict(embed_dims=32, feedforward_channels=64, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU", inplace=True))
model = dict(
    type="DETR",
    num_queries=20,
    backbone=dict(
        type="ResNet", depth=50, base_channels=8, num_stages=4, out_indices=(3,), frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, style="pytorch",
    ),
    neck=dict(
        type="ChannelMapper", in_channels=[256], kernel_size=1, out_channels=32, act_cfg=None, norm_cfg=None, num_outs=1
    ),
    encoder=dict(num_layers=6, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=6,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
        return_intermediate=True,
    ),
    positional_encoding=dict(num_feats=16, normalize=True),
    bbox_head=dict(
        type="DETRHead", num_classes=7, embed_dims=32,
        loss_cls=dict(
            type="CrossEntropyLoss", bg_cls_weight=0.1, use_sigmoid=False, loss_weight=1.0, class_weight=1.0
        ),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=1.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=20),
)  # fmt: skip
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.0001, weight_decay=0.0001),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1, decay_mult=1.0))),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=150, val_interval=1)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=150, by_epoch=True, milestones=[100], gamma=0.1)]
