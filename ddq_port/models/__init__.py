"""The detectors of this package; importing it registers them in :mod:`ddq_port.registry`."""

from ddq_port import requirements

requirements.check()  # before an import below fails for a lack of mmcv

from .co_detr import (
    CoATSSHead,
    CoDeformableDetrTransformer,
    CoDeformableDetrTransformerDecoder,
    CoDeformDETRHead,
    CoDETR,
    CoDINOHead,
    CoDinoTransformer,
    CoStandardRoIHead,
    DetrTransformerEncoder,
    DinoTransformerDecoder,
    SwinTransformerV1,
)
from .ddq_detr import DDQDETR, DDQDETRHead, DDQTransformerDecoder, DenseAuxLoss, TopkHungarianAssigner
from .ddq_fcn import DDQFCNHead, LogitTopkHungarianAssigner, QueryLoss, ShareBBoxL1Cost, ShareIoUCost
from .ddq_rcnn import DDQFCNRPN, DDQRCNN
from .detr import DETR, DeformableDETR, DeformableDETRHead, DETRHead, NormalizedBBoxL1Cost

__all__ = [
    "CoATSSHead", "CoDETR", "CoDINOHead", "CoDeformDETRHead", "CoDeformableDetrTransformer",
    "CoDeformableDetrTransformerDecoder", "CoDinoTransformer", "CoStandardRoIHead", "DetrTransformerEncoder",
    "DinoTransformerDecoder", "DDQDETR", "DDQDETRHead", "DDQFCNHead", "DDQFCNRPN", "DDQRCNN", "DDQTransformerDecoder", "DETR", "DETRHead",
    "DeformableDETR", "DeformableDETRHead", "DenseAuxLoss", "LogitTopkHungarianAssigner", "NormalizedBBoxL1Cost",
    "QueryLoss", "ShareBBoxL1Cost", "ShareIoUCost", "SwinTransformerV1", "TopkHungarianAssigner",
]  # fmt: skip
