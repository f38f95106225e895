"""What queries are to become, and the loss of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.models.detr.matching import NORMALIZED


class Targets(NamedTuple):
    """Targets of the queries of a batch, one image behind the other.

    Attributes:
        labels: [bs * num_queries], the number of classes for background.
        label_weights: [bs * num_queries].
        bboxes: [bs * num_queries, 4] cxcywh in [0, 1]; zeros for background.
        bbox_weights: [bs * num_queries, 4].
        num_positives: how many queries become objects.
    """

    labels: Tensor
    label_weights: Tensor
    bboxes: Tensor
    bbox_weights: Tensor
    num_positives: int


def scale(meta: dict, like: Tensor) -> Tensor:
    """Return an image's (w, h, w, h) in pixels, [1, 4]."""
    h, w = meta["img_shape"][:2]
    return like.new_tensor([w, h, w, h])[None]


def matched(
    assigner: object,
    cls_scores: Tensor,
    bbox_preds: Tensor,
    batch_gt_instances: InstanceList,
    batch_img_metas: Sequence[dict],
    num_classes: int,
) -> Targets:
    """Match the queries of a layer with objects, one with one.

    Args:
        assigner: one of mmdet's; it finds the boxes as they are under ``NORMALIZED`` in the image's meta information.
        cls_scores: [bs, num_queries, num_classes] logits.
        bbox_preds: [bs, num_queries, 4] cxcywh in [0, 1].
        batch_gt_instances: ``bboxes`` [n, 4] xyxy in pixels and ``labels`` [n] of each image.
        batch_img_metas: with ``img_shape`` (h, w) in pixels.
        num_classes: the label of the background.
    """
    images = []
    for scores, boxes, objects, meta in zip(cls_scores, bbox_preds, batch_gt_instances, batch_img_metas):
        predicted = InstanceData(scores=scores, bboxes=bbox_cxcywh_to_xyxy(boxes) * scale(meta, boxes))
        result = assigner.assign(predicted, objects, {**meta, NORMALIZED: boxes})
        index = torch.nonzero(result.gt_inds > 0).squeeze(-1)
        images.append(_of_image(objects, meta, boxes, index, result.gt_inds[index] - 1, num_classes))
    return _joined(images)


def of_denoising(
    bbox_preds: Tensor,
    batch_gt_instances: InstanceList,
    batch_img_metas: Sequence[dict],
    num_groups: int,
    num_classes: int,
) -> Targets:
    """Return the targets of denoising queries: the near ones become their object, the others background.

    Args:
        bbox_preds: [bs, num_denoising, 4].
        batch_gt_instances: ``bboxes`` [n, 4] xyxy in pixels and ``labels`` [n] of each image.
        batch_img_metas: with ``img_shape`` (h, w) in pixels.
        num_groups: how many groups of queries.
        num_classes: the label of the background.
    """
    images, group = [], bbox_preds.shape[1] // num_groups
    for boxes, objects, meta in zip(bbox_preds, batch_gt_instances, batch_img_metas):
        which = torch.arange(len(objects), device=boxes.device).repeat(num_groups, 1)  # [num_groups, n]
        starts = group * torch.arange(num_groups, device=boxes.device)[:, None]
        # [num_groups * n] each
        images.append(_of_image(objects, meta, boxes, (starts + which).flatten(), which.flatten(), num_classes))
    return _joined(images)


def _of_image(
    objects: InstanceData, meta: dict, boxes: Tensor, index: Tensor, which: Tensor, num_classes: int
) -> Targets:
    """Return the targets of an image whose queries ``index`` become the objects ``which``."""
    labels = boxes.new_full((len(boxes),), num_classes, dtype=torch.long)
    labels[index] = objects.labels[which]
    targets, weights = torch.zeros_like(boxes), torch.zeros_like(boxes)
    weights[index] = 1.0
    targets[index] = bbox_xyxy_to_cxcywh(objects.bboxes / scale(meta, boxes))[which]
    return Targets(labels, boxes.new_ones(len(boxes)), targets, weights, len(index))


def _joined(images: Sequence[Targets]) -> Targets:
    *tensors, counts = zip(*images)
    return Targets(*(torch.cat(parts) for parts in tensors), sum(counts))  # [bs * num_queries, ...]
