# The changes that make this toolkit's `ddq-detr-4scale_tiny_shapes` of the official 4-scale ResNet-50 config: model,
# data, optimizer, schedule, length. Literal values only: it is merged into the official config.
model = dict(
    num_queries=30,
    backbone=dict(
        depth=18,
        base_channels=16,
        init_cfg=None,
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(in_channels=[32, 64, 128], out_channels=64),
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg=dict(embed_dims=64), ffn_cfg=dict(embed_dims=64, feedforward_channels=128)),
    ),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=64),
            cross_attn_cfg=dict(embed_dims=64),
            ffn_cfg=dict(embed_dims=64, feedforward_channels=128),
        ),
    ),
    positional_encoding=dict(num_feats=32),
    bbox_head=dict(num_classes=3, embed_dims=64),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=30),
)

_classes = dict(classes=("ellipse", "rectangle", "triangle"))
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    batch_sampler=None,
    dataset=dict(
        metainfo=_classes,
        filter_cfg=dict(_delete_=True, filter_empty_gt=False),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            # changes no pixel of these images; the official `PackDetInputs` asks for the scale factor it writes
            dict(type="Resize", scale=(128, 128), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
_test = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        metainfo=_classes,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(128, 128), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ],
    ),
)
val_dataloader = _test
test_dataloader = _test

train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=900, val_interval=225)
optim_wrapper = dict(
    optimizer=dict(lr=0.002, weight_decay=0.05),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=900, T_max=850, eta_min=0.0),
]
default_hooks = dict(
    logger=dict(interval=1, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=150, save_best=None),
)
log_processor = dict(window_size=1, by_epoch=False)
