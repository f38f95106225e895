"""The detectors of this package; importing it registers them in :mod:`ddq_port.registry`."""

from ddq_port import requirements

requirements.check()  # before an import below fails for a lack of mmcv

from .ddq_detr import DDQDETR, DDQDETRHead, DDQTransformerDecoder, DenseAuxLoss, TopkHungarianAssigner
from .detr import DETR, DeformableDETR, DeformableDETRHead, DETRHead, NormalizedBBoxL1Cost

__all__ = [
    "DDQDETR", "DDQDETRHead", "DDQTransformerDecoder", "DETR", "DETRHead", "DeformableDETR", "DeformableDETRHead",
    "DenseAuxLoss", "NormalizedBBoxL1Cost", "TopkHungarianAssigner",
]  # fmt: skip
