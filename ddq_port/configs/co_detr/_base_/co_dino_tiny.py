# Co-DINO at a small width: every part of the r50 model, a ResNet-50 of 4 channels, two layers each.
_base_ = ["co_dino.py"]

_classes, _dim = 3, 64
# parts of a base that several places share or that are lists can be changed only here, where mmengine puts the base in
# the place of its name
for _attention in (
    _base_.model.query_head.transformer.encoder.transformerlayers.attn_cfgs,
    *_base_.model.query_head.transformer.decoder.transformerlayers.attn_cfgs,
):
    _attention.update(embed_dims=_dim)
_base_.model.roi_head[0].bbox_roi_extractor.update(out_channels=_dim)
_base_.model.roi_head[0].bbox_head.update(in_channels=_dim, fc_out_channels=32, num_classes=_classes)
_base_.model.bbox_head[0].update(num_classes=_classes, in_channels=_dim, feat_channels=_dim)
_base_.model.test_cfg[0].update(max_per_img=30)
del _attention
model = dict(
    backbone=dict(base_channels=4, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=_dim),
    rpn_head=dict(in_channels=_dim, feat_channels=_dim),
    query_head=dict(
        num_query=50,
        num_classes=_classes,
        dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
        positional_encoding=dict(num_feats=_dim // 2),
        transformer=dict(
            encoder=dict(num_layers=2, with_cp=0, transformerlayers=dict(feedforward_channels=128)),
            decoder=dict(num_layers=2, transformerlayers=dict(feedforward_channels=128)),
        ),
    ),
)
