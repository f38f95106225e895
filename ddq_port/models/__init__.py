"""The detectors of this package; importing it registers them in :mod:`ddq_port.registry`."""

from ddq_port import requirements

requirements.check()  # before an import below fails for a lack of mmcv

from .ddq_detr import DDQDETR, DDQDETRHead, DDQTransformerDecoder, DenseAuxLoss, TopkHungarianAssigner

__all__ = ["DDQDETR", "DDQDETRHead", "DDQTransformerDecoder", "DenseAuxLoss", "TopkHungarianAssigner"]
