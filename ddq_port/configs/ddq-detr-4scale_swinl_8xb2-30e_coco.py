# DDQ-DETR, Swin-L, 4 scales, 30 epochs on COCO with 8 GPUs x 2 images.
# Values: jshilong/DDQ, branch ddq_detr, projects/configs/ddq_detr/ddq-detr-4scale_swinl_8xb2-30e_coco.py.
_base_ = ["ddq-detr-4scale_r50_8xb2-12e_coco.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="SwinTransformer",
        pretrain_img_size=384,
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.2,
        patch_norm=True,
        out_indices=(1, 2, 3),
        with_cp=False,
        convert_weights=True,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
            "swin_large_patch4_window12_384_22k.pth",
        ),
    ),
    neck=dict(in_channels=[384, 768, 1536]),
)

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.05))))

max_epochs = 30
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.0001, by_epoch=False, begin=0, end=2000),
    dict(type="MultiStepLR", begin=0, end=max_epochs, by_epoch=True, milestones=[20, 26], gamma=0.1),
]
