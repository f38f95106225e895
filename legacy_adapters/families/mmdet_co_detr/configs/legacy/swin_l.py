# The backbone of Co-DINO on Swin-L in MMDetection's `projects/CO-DETR`, in place of that of this toolkit's config.
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdet.SwinTransformer",
        pretrain_img_size=384,
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        mlp_ratio=4,
        drop_path_rate=0.3,
        patch_norm=True,
        out_indices=(0, 1, 2, 3),
    )
)
