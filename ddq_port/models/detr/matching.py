"""A cost of matching that takes boxes as the head gives them."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.registry import TASK_UTILS

#: Under which the heads of this package pass their boxes in an image's meta information.
NORMALIZED = "normalized_bboxes"


@TASK_UTILS.register_module()
class NormalizedBBoxL1Cost(BaseMatchCost):
    """L1 distance of normalised boxes, as in MMDetection 2.x.

    mmdet's ``BBoxL1Cost`` of 3.x is given boxes in pixels and divides them again, which rounds twice. Needs a head of
    this package.
    """

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict[str, Any], **kwargs: Any
    ) -> Tensor:
        """Return the cost [num_preds, num_gts].

        Args:
            pred_instances: not looked at.
            gt_instances: ``bboxes`` [num_gts, 4] xyxy in pixels.
            img_meta: ``img_shape`` (h, w) in pixels, and the predicted boxes [num_preds, 4] cxcywh in [0, 1].
        """
        h, w = img_meta["img_shape"]
        objects = gt_instances.bboxes / gt_instances.bboxes.new_tensor([[w, h, w, h]])
        return torch.cdist(img_meta[NORMALIZED], bbox_xyxy_to_cxcywh(objects), p=1) * self.weight
