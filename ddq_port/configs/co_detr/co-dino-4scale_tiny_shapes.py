# A small Co-DINO with a ResNet-18 and four levels, trained from scratch on the CPU on the images that `ddq-train demo` draws.
_base_ = ["../_base_/shapes.py", "_base_/co_dino_tiny.py"]

_strides = [8, 16, 32, 64, 128]
_base_.model.query_head.transformer.decoder.transformerlayers.attn_cfgs[1].update(num_levels=4)
_base_.model.roi_head[0].bbox_roi_extractor.update(featmap_strides=_strides[:4], finest_scale=112)
_base_.model.bbox_head[0].anchor_generator.update(strides=_strides)
model = dict(
    # powers of two: MMDetection 2.x multiplies by 1 / std, and gets the same bits
    data_preprocessor=dict(mean=[128.0, 128.0, 128.0], std=[64.0, 64.0, 64.0]),
    # trained as a whole, normalisation included
    backbone=dict(
        depth=18,
        base_channels=16,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(in_channels=[32, 64, 128], num_outs=4),
    rpn_head=dict(anchor_generator=dict(strides=_strides)),
    query_head=dict(
        max_pos_coords=60,
        transformer=dict(
            num_feature_levels=4,
            encoder=dict(with_cp=0, transformerlayers=dict(attn_cfgs=dict(num_levels=4))),
        ),
    ),
)
optim_wrapper = dict(clip_grad=dict(max_norm=0.1))
