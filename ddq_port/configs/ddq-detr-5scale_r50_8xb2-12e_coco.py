# DDQ-DETR, ResNet-50, 5 scales, 12 epochs on COCO with 8 GPUs x 2 images.
# Values: jshilong/DDQ, branch ddq_detr, projects/configs/ddq_detr/ddq-detr-5scale_r50_8xb2-12e_coco.py.
_base_ = ["ddq-detr-4scale_r50_8xb2-12e_coco.py"]

model = dict(
    num_feature_levels=5,
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[256, 512, 1024, 2048], num_outs=5),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=5))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=5))),
)
