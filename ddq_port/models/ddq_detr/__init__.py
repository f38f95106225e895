"""DDQ-DETR: Dense Distinct Query for End-to-End Object Detection (https://arxiv.org/abs/2303.12776)."""

from .assigner import TopkHungarianAssigner
from .aux_loss import DenseAuxLoss
from .decoder import DDQTransformerDecoder
from .detector import DDQDETR
from .fast import FastDDQDETR
from .head import DDQDETRHead

__all__ = ["DDQDETR", "DDQDETRHead", "DDQTransformerDecoder", "DenseAuxLoss", "FastDDQDETR", "TopkHungarianAssigner"]
