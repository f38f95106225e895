"""Deformable DETR of MMDetection 2.x in two stages, small, but for 256 channels that embedding proposals needs."""
_base_ = "tiny_deformable_refine.py"
sampling = dict(type="MultiScaleDeformableAttention", embed_dims=256, num_heads=8)
ffn = dict(embed_dims=256)
model = dict(
    neck=dict(out_channels=256),
    bbox_head=dict(
        as_two_stage=True,
        transformer=dict(
            encoder=dict(num_layers=1, transformerlayers=dict(attn_cfgs=sampling, ffn_cfgs=ffn)),
            decoder=dict(
                num_layers=2,
                transformerlayers=dict(
                    attn_cfgs=[dict(type="MultiheadAttention", embed_dims=256, num_heads=8, dropout=0.1), sampling],
                    ffn_cfgs=ffn,
                ),
            ),
        ),
        positional_encoding=dict(num_feats=128),
    ),
)
