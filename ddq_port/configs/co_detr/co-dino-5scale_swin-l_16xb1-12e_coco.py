# Co-DINO, five levels, Swin-L, 12 epochs on COCO with 16 GPUs x 1 image.
# Values: Sense-X/Co-DETR, projects/configs/co_dino/co_dino_5scale_swin_large_1x_coco.py.
_base_ = ["co-dino-5scale_r50_8xb2-12e_coco.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="ddq_port.SwinTransformerV1",
        embed_dim=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        out_indices=(0, 1, 2, 3),
        window_size=12,
        drop_path_rate=0.3,
        patch_norm=True,
        use_checkpoint=False,
        pretrained="models/swin_large_patch4_window12_384_22k.pth",
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
    query_head=dict(transformer=dict(encoder=dict(with_cp=6))),
)
train_dataloader = dict(batch_size=1, num_workers=1)
