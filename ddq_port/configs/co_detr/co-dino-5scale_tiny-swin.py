# A small Co-DINO on a narrow Swin for tests: every part of the Swin-L model.
_base_ = ["co-dino-5scale_tiny.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="ddq_port.SwinTransformerV1",
        embed_dim=16,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        out_indices=(0, 1, 2, 3),
        window_size=7,
        drop_path_rate=0.3,
        patch_norm=True,
        use_checkpoint=False,
    ),
    query_head=dict(transformer=dict(encoder=dict(with_cp=2))),
)
