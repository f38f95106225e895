# What makes the small Co-DINO one with a Swin Transformer, merged into the official config of Swin-L behind
# `tiny_co_dino.py`: its windows are cut off at the image's edge.
model = dict(
    backbone=dict(
        _delete_=True,
        type="SwinTransformerV1",
        embed_dim=12,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 3, 4],
        out_indices=(0, 1, 2, 3),
        window_size=4,
        ape=False,
        drop_path_rate=0.3,
        patch_norm=True,
        use_checkpoint=False,
    ),
    neck=dict(in_channels=[12, 24, 48, 96]),
)
