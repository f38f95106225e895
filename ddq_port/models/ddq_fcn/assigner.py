"""One-to-many assignment of queries whose scores are turned into logits for the cost."""

from __future__ import annotations

from mmdet.models.layers import inverse_sigmoid
from torch import Tensor

from ddq_port.models.ddq_detr.assigner import TopkHungarianAssigner
from ddq_port.registry import TASK_UTILS


@TASK_UTILS.register_module()
class LogitTopkHungarianAssigner(TopkHungarianAssigner):
    """The assigner of DDQ FCN and DDQ R-CNN (jshilong/DDQ, branch main).

    It differs from that of DDQ-DETR in what its costs are given: the class cost gets logits, so that its sigmoid gives
    the scores again, and the box cost gets boxes by way of shares of the image.

    Args:
        topk: queries per object, at least 1; fewer where there are fewer queries than ``topk * num_gts``.
        reg_cost: config of the box cost.
        options: as of the base class.
    """

    def __init__(self, topk: int, reg_cost: dict | None = None, **options: object) -> None:
        super().__init__(topk, reg_cost=reg_cost or dict(type="ddq_port.ShareBBoxL1Cost", weight=5.0), **options)

    def class_basis(self, scores: Tensor) -> Tensor:
        """Return logits [num_queries, num_classes] of scores, which mmdet clips to [1e-5, 1 - 1e-5]."""
        return inverse_sigmoid(scores)
