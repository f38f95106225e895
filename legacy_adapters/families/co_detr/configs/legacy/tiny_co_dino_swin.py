# What makes the small Co-DINO that of `co-dino-5scale_tiny-swin`, merged into the official config of Swin-L behind
# `tiny_co_dino.py`, whose ResNet it replaces.
model = dict(
    backbone=dict(
        _delete_=True,
        type="SwinTransformerV1",
        embed_dim=16,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        out_indices=(0, 1, 2, 3),
        window_size=7,
        ape=False,
        drop_path_rate=0.3,
        patch_norm=True,
        use_checkpoint=False,
    ),
    query_head=dict(transformer=dict(encoder=dict(with_cp=2))),
)
