"""Deformable DETR of MMDetection 3.x in two stages, small; 2.x has its embedding of proposals for 256 channels only."""
_base_ = "tiny_deformable_refine.py"
sampling = dict(embed_dims=256, num_heads=8)
ffn = dict(embed_dims=256)
model = dict(
    as_two_stage=True,
    neck=dict(out_channels=256),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=sampling, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=8), cross_attn_cfg=sampling, ffn_cfg=ffn
        ),
    ),
    positional_encoding=dict(num_feats=128),
    bbox_head=dict(embed_dims=256),
)
