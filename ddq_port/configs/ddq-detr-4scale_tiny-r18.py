# A DDQ-DETR of 1 M parameters with a ResNet-18, whose blocks are not bottlenecks: `ddq-detr-4scale_tiny` but for that.
# `model` holds literal values only: it is merged into the config of another code base as well.
_base_ = ["ddq-detr-4scale_r50_8xb2-12e_coco.py"]

model = dict(
    num_queries=60,
    backbone=dict(depth=18, base_channels=16, init_cfg=None),
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
    test_cfg=dict(max_per_img=50),
)
