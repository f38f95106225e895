# Co-Deformable-DETR at a small width: every part of the r50 model, a ResNet-50 of 4 channels, few layers. Both cases of
# a further head occur: more positive boxes than become queries, and fewer.
_base_ = ["co_deformable.py"]

_classes, _dim, _samples = 3, 64, 48
_proposals = dict(nms_pre=200, max_per_img=100)
# elements of a list of the base can be changed only here, where mmengine puts the base in the place of its name
for _attention in _base_.model.query_head.transformer.decoder.transformerlayers.attn_cfgs:
    _attention.update(embed_dims=_dim)
_base_.model.roi_head[0].bbox_roi_extractor.update(out_channels=_dim)
_base_.model.roi_head[0].bbox_head.update(in_channels=_dim, fc_out_channels=_dim, num_classes=_classes)
_base_.model.bbox_head[0].update(
    num_classes=_classes,
    in_channels=_dim,
    feat_channels=_dim,
    norm_cfg=dict(type="GN", num_groups=8, requires_grad=True),
)
_base_.model.train_cfg[1].rpn.sampler.update(num=_samples)
_base_.model.train_cfg[1].rpn_proposal.update(_proposals)
_base_.model.train_cfg[1].rcnn.sampler.update(num=_samples)
_base_.model.test_cfg[0].update(max_per_img=20)
_base_.model.test_cfg[1].rpn.update(_proposals)
_base_.model.test_cfg[1].rcnn.update(max_per_img=20)
_base_.model.test_cfg[2].update(max_per_img=20)
del _attention
model = dict(
    backbone=dict(base_channels=4, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=_dim, norm_cfg=dict(num_groups=8)),
    rpn_head=dict(in_channels=_dim, feat_channels=_dim),
    query_head=dict(
        num_query=30,
        num_classes=_classes,
        max_pos_coords=12,
        positional_encoding=dict(num_feats=_dim // 2),
        transformer=dict(
            encoder=dict(
                num_layers=2,
                transformerlayers=dict(attn_cfgs=dict(embed_dims=_dim), feedforward_channels=128),
            ),
            decoder=dict(num_layers=3, transformerlayers=dict(feedforward_channels=128)),
        ),
    ),
)
