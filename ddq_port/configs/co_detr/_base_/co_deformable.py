# Co-Deformable-DETR with a ResNet-50.
# Values: Sense-X/Co-DETR, projects/configs/co_deformable_detr/co_deformable_detr_r50_1x_coco.py.
_base_ = ["co_detr.py"]

model = dict(
    query_head=dict(
        type="ddq_port.CoDeformDETRHead",
        num_query=300,
        transformer=dict(
            type="ddq_port.CoDeformableDetrTransformer",
            decoder=dict(type="ddq_port.CoDeformableDetrTransformerDecoder", look_forward_twice=True),
        ),
        positional_encoding=dict(offset=-0.5),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
    ),
)
