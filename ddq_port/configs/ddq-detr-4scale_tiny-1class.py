# A DDQ-DETR of 1 M parameters for one class of objects, for tests: `ddq-detr-4scale_tiny` but for the last lines.
# `model` holds literal values only: it is merged into the config of another code base as well.
_base_ = ["ddq-detr-4scale_r50_8xb2-12e_coco.py"]

model = dict(
    num_queries=60,
    backbone=dict(depth=50, base_channels=4, init_cfg=None),
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
    bbox_head=dict(num_classes=1, embed_dims=64),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    # The legacy code takes the best `max_per_img` (query, class) pairs without asking how many there are: with one
    # class it raises as soon as fewer queries than that stay distinct. With seeded weights 10 of the 60 always do.
    test_cfg=dict(max_per_img=10),
)
