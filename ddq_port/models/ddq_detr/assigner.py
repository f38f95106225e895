"""One-to-many assignment of dense queries by bipartite matching against repeated ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ddq_port.registry import TASK_UTILS


@dataclass(frozen=True)
class DenseAssignment:
    """Positive dense queries of one image, in ascending query order.

    Attributes:
        query_inds: [num_pos] indices of the positive queries.
        gt_inds: [num_pos] the object each is assigned to.
        alignments: [num_pos] ``score ** alpha * iou ** beta`` with that object, >= 0.
        ious: [num_pos] IoU with that object, in [0, 1].
    """

    query_inds: Tensor
    gt_inds: Tensor
    alignments: Tensor
    ious: Tensor


@TASK_UTILS.register_module()
class TopkHungarianAssigner:
    """Give every object its ``topk`` best queries by one Hungarian matching over ``topk`` copies of the objects.

    The class cost is mmdet's ``FocalLossCost`` applied to *probabilities*, so a second sigmoid is applied inside it,
    as in the official DDQ-DETR code (jshilong/DDQ, branch ddq_detr, ``projects/models/utils.py``); the DDQ FCN and
    R-CNN of that repository take logits instead, this class does not serve them.

    Args:
        topk: queries per object, at least 1; fewer where there are fewer queries than ``topk * num_gts``.
        alpha: exponent of the score in the alignment metric.
        beta: exponent of the IoU in the alignment metric.
        cls_cost: config of the classification cost, given probabilities.
        reg_cost: config of the box cost.
        iou_cost: config of the IoU cost.
    """

    def __init__(
        self,
        topk: int = 4,
        alpha: float = 1,
        beta: float = 6,
        cls_cost: dict | None = None,
        reg_cost: dict | None = None,
        iou_cost: dict | None = None,
    ) -> None:
        if topk < 1:
            raise ValueError(f"TopkHungarianAssigner: topk is {topk}; expected at least 1.")
        self.topk, self.alpha, self.beta = topk, alpha, beta
        self.cls_cost = TASK_UTILS.build(cls_cost or dict(type="FocalLossCost", weight=2.0))
        self.reg_cost = TASK_UTILS.build(reg_cost or dict(type="BBoxL1Cost", weight=5.0))
        self.iou_cost = TASK_UTILS.build(iou_cost or dict(type="IoUCost", iou_mode="giou", weight=2.0))

    def class_basis(self, scores: Tensor) -> Tensor:
        """Return what the class cost is given of scores [num_queries, num_classes]: here they themselves."""
        return scores

    @torch.no_grad()
    def assign(self, scores: Tensor, bboxes: Tensor, gt_instances: InstanceData, img_meta: dict) -> DenseAssignment:
        """Match the queries of one image.

        Args:
            scores: [num_queries, num_classes] probabilities in [0, 1].
            bboxes: [num_queries, 4] xyxy in pixels.
            gt_instances: ``bboxes`` [num_gts, 4] xyxy in pixels and ``labels`` [num_gts], at least one object.
            img_meta: needs ``img_shape`` (h, w) in pixels.
        """
        preds = InstanceData(scores=self.class_basis(scores), bboxes=bboxes)
        # the order of the additions is part of the numerics
        cost = self.cls_cost(preds, gt_instances, img_meta) + self.reg_cost(preds, gt_instances, img_meta)
        cost = cost + self.iou_cost(preds, gt_instances, img_meta)  # [num_queries, num_gts]
        copies = min(self.topk, len(bboxes) // len(gt_instances.labels))
        query_inds, gt_inds = match_with_copies(cost, copies)

        alignments = (
            scores[:, gt_instances.labels] ** self.alpha * bbox_overlaps(bboxes, gt_instances.bboxes) ** self.beta
        )
        return DenseAssignment(
            query_inds=query_inds,
            gt_inds=gt_inds,
            alignments=alignments[query_inds, gt_inds],
            ious=bbox_overlaps(bboxes[query_inds], gt_instances.bboxes[gt_inds], is_aligned=True),
        )


def match_with_copies(cost: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """Match rows to ``copies`` duplicates of each column at the least total cost.

    Args:
        cost: [num_rows, num_cols].
        copies: duplicates of each column, >= 0.

    Returns:
        Row indices in ascending order and the column of each, both [min(num_rows, num_cols * copies)].
    """
    repeated = cost.repeat_interleave(copies, dim=1)  # [num_rows, num_cols * copies]
    pairs = np.stack(linear_sum_assignment(repeated.cpu().numpy()))  # [2, num_pairs]: rows, columns
    rows, cols = torch.from_numpy(pairs).to(cost.device)  # in one copy: a GPU is waited for by each
    return rows, cols // max(copies, 1)
