# Co-Deformable-DETR, Swin-T, 12 epochs on COCO with 8 GPUs x 2 images.
# Values: Sense-X/Co-DETR, projects/configs/co_deformable_detr/co_deformable_detr_swin_tiny_1x_coco.py.
_base_ = ["co-deformable-detr_r50_8xb2-12e_coco.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="ddq_port.SwinTransformerV1",
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        out_indices=(1, 2, 3),
        window_size=7,
        drop_path_rate=0.2,
        patch_norm=True,
        use_checkpoint=False,
        pretrained="models/swin_tiny_patch4_window7_224.pth",
    ),
    neck=dict(in_channels=[192, 384, 768]),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
