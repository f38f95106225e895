# The small width of `co-dino-5scale_tiny`, merged into the official config of 12 epochs; elements of a list are keyed by
# number. Both cases of a further head occur: more positive boxes than become queries, and fewer.
_classes, _width, _samples = 3, 64, 48
_attention = dict(embed_dims=_width)
# without its own width a feed-forward network has 256
_layers = dict(feedforward_channels=128, ffn_cfgs=dict(type="FFN", embed_dims=_width))
_proposals = dict(nms_pre=200, max_per_img=100)
model = dict(
    backbone=dict(base_channels=4, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=_width, norm_cfg=dict(num_groups=8)),
    rpn_head=dict(in_channels=_width, feat_channels=_width),
    query_head=dict(
        num_query=30,
        num_classes=_classes,
        max_pos_coords=12,
        dn_cfg=dict(group_cfg=dict(num_dn_queries=10)),
        transformer=dict(
            encoder=dict(num_layers=2, with_cp=1, transformerlayers=dict(attn_cfgs=_attention, **_layers)),
            decoder=dict(num_layers=3, transformerlayers=dict(attn_cfgs={"0": _attention, "1": _attention}, **_layers)),
        ),
        positional_encoding=dict(num_feats=_width // 2),
    ),
    roi_head={
        "0": dict(
            bbox_roi_extractor=dict(out_channels=_width),
            bbox_head=dict(in_channels=_width, fc_out_channels=_width, num_classes=_classes),
        )
    },
    bbox_head={
        "0": dict(
            in_channels=_width,
            feat_channels=_width,
            num_classes=_classes,
            norm_cfg=dict(type="GN", num_groups=8, requires_grad=True),
        )
    },
    train_cfg={
        "1": dict(rpn=dict(sampler=dict(num=_samples)), rpn_proposal=_proposals, rcnn=dict(sampler=dict(num=_samples)))
    },
    test_cfg={
        "0": dict(max_per_img=20),
        "1": dict(rpn=_proposals, rcnn=dict(max_per_img=20)),
        "2": dict(max_per_img=20),
    },
)
