"""The detectors of this package; importing it registers them in :mod:`ddq_port.registry`."""

from .ddq_detr import DDQDETR, DDQDETRHead, DDQTransformerDecoder, DenseAuxLoss, TopkHungarianAssigner

__all__ = ["DDQDETR", "DDQDETRHead", "DDQTransformerDecoder", "DenseAuxLoss", "TopkHungarianAssigner"]
