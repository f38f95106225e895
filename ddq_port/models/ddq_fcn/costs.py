"""Costs of matching that take boxes as shares of the image, as MMDetection 2.x does.

mmdet 3.3.0 divides boxes in pixels where 2.x is given (centre, size) as shares of the image and turns these back into
corners. Both round, but not alike, and a matching may rest on the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost, IoUCost
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.registry import TASK_UTILS


def image_factor(like: Tensor, img_meta: dict[str, Any]) -> Tensor:
    """Return (w, h, w, h) [1, 4] of an image in pixels."""
    height, width = img_meta["img_shape"][:2]
    return like.new_tensor([[width, height, width, height]])


def through_shares(bboxes: Tensor, img_meta: dict[str, Any]) -> Tensor:
    """Return boxes [n, 4] xyxy in pixels as corners in shares of the image, by way of (centre, size)."""
    return bbox_cxcywh_to_xyxy(bbox_xyxy_to_cxcywh(bboxes / image_factor(bboxes, img_meta)))


@TASK_UTILS.register_module()
class ShareBBoxL1Cost(BaseMatchCost):
    """L1 distance of corners in shares of the image."""

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict[str, Any], **kwargs: Any
    ) -> Tensor:
        """Return the cost [num_preds, num_gts].

        Args:
            pred_instances: ``bboxes`` [num_preds, 4] xyxy in pixels.
            gt_instances: ``bboxes`` [num_gts, 4] xyxy in pixels.
            img_meta: ``img_shape`` (h, w) in pixels.
        """
        objects = gt_instances.bboxes / image_factor(gt_instances.bboxes, img_meta)
        return torch.cdist(through_shares(pred_instances.bboxes, img_meta), objects, p=1) * self.weight


@TASK_UTILS.register_module()
class ShareIoUCost(IoUCost):
    """IoU of boxes that were shares of the image on the way, and are pixels again; options of mmdet's ``IoUCost``."""

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict[str, Any], **kwargs: Any
    ) -> Tensor:
        """Return the cost [num_preds, num_gts]; arguments as of :class:`ShareBBoxL1Cost`."""
        bboxes = pred_instances.bboxes
        pixels = through_shares(bboxes, img_meta) * image_factor(bboxes, img_meta)
        return super().__call__(InstanceData(bboxes=pixels), gt_instances, img_meta)
