# Co-DINO on four levels: the official config of five, without the finest level of the backbone.
_attention = dict(num_levels=4)
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048], num_outs=4),
    rpn_head=dict(anchor_generator=dict(strides=[8, 16, 32, 64, 128])),
    query_head=dict(
        num_feature_levels=4,
        transformer=dict(
            num_feature_levels=4,
            encoder=dict(transformerlayers=dict(attn_cfgs=_attention)),
            decoder=dict(transformerlayers=dict(attn_cfgs={"1": _attention})),
        ),
    ),
    roi_head={"0": dict(bbox_roi_extractor=dict(featmap_strides=[8, 16, 32, 64], finest_scale=112))},
    bbox_head={"0": dict(anchor_generator=dict(strides=[8, 16, 32, 64, 128]))},
)
