# Co-DINO with a ResNet-50 and five levels.
# Values: Sense-X/Co-DETR, projects/configs/co_dino/co_dino_5scale_r50_1x_coco.py.
_base_ = ["co_detr.py"]

_strides = [4, 8, 16, 32, 64, 128]
# elements of a list of the base can be changed only here, where mmengine puts the base in the place of its name
_base_.model.query_head.transformer.decoder.transformerlayers.attn_cfgs[1].update(num_levels=5)
_base_.model.roi_head[0].bbox_roi_extractor.update(featmap_strides=_strides[:5], finest_scale=56)
_base_.model.bbox_head[0].anchor_generator.update(strides=_strides)
_base_.model.test_cfg[0].update(max_per_img=300, nms=dict(type="soft_nms", iou_threshold=0.8))
model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[256, 512, 1024, 2048], num_outs=5),
    rpn_head=dict(anchor_generator=dict(strides=_strides)),
    query_head=dict(
        type="ddq_port.CoDINOHead",
        num_query=900,
        dn_cfg=dict(
            noise_scale=dict(label=0.5, box=1.0),
            group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=100),
        ),
        transformer=dict(
            type="ddq_port.CoDinoTransformer",
            with_coord_feat=False,
            num_feature_levels=5,
            encoder=dict(
                with_cp=4,  # layers that are computed again in the backward pass
                transformerlayers=dict(attn_cfgs=dict(num_levels=5)),
            ),
            decoder=dict(type="ddq_port.DinoTransformerDecoder"),
        ),
        positional_encoding=dict(temperature=20),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
    ),
)
