"""DDQ FCN: Dense Distinct Query for End-to-End Object Detection (https://arxiv.org/abs/2303.12776)."""

from .assigner import LogitTopkHungarianAssigner
from .costs import ShareBBoxL1Cost, ShareIoUCost
from .head import DDQFCNHead
from .losses import FocalLoss, GIoULoss, L1Loss, QualityFocalLoss
from .query_loss import QueryLoss

__all__ = [
    "DDQFCNHead", "FocalLoss", "GIoULoss", "L1Loss", "LogitTopkHungarianAssigner", "QualityFocalLoss", "QueryLoss",
    "ShareBBoxL1Cost", "ShareIoUCost",
]  # fmt: skip
