# Co-DINO, four levels, ResNet-50, 12 epochs on COCO with 8 GPUs x 2 images.
# The official code has no such config: this is that of five levels, with the levels of its Co-Deformable-DETR.
_base_ = ["co-dino-5scale_r50_8xb2-12e_coco.py"]

_strides = [8, 16, 32, 64, 128]
_base_.model.query_head.transformer.decoder.transformerlayers.attn_cfgs[1].update(num_levels=4)
_base_.model.roi_head[0].bbox_roi_extractor.update(featmap_strides=_strides[:4], finest_scale=112)
_base_.model.bbox_head[0].anchor_generator.update(strides=_strides)
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048], num_outs=4),
    rpn_head=dict(anchor_generator=dict(strides=_strides)),
    query_head=dict(
        transformer=dict(
            num_feature_levels=4,
            encoder=dict(transformerlayers=dict(attn_cfgs=dict(num_levels=4))),
        )
    ),
)
