"""Detections of the last layer's queries."""

from __future__ import annotations

from mmcv.ops import batched_nms
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor

from .targets import scale


def detections(
    cls_score: Tensor, bbox_pred: Tensor, meta: dict, config: dict, num_query: int, rescale: bool, with_nms: bool
) -> InstanceData:
    """Return the best classes of queries as objects of an image.

    Args:
        cls_score: [num_queries, num_classes] logits.
        bbox_pred: [num_queries, 4] cxcywh in [0, 1].
        meta: with ``img_shape`` (h, w) in pixels and, to rescale, ``scale_factor``.
        config: ``max_per_img``, as many objects at most; ``score_thr``, they have a higher score, 0 if not given;
            ``nms``. As in the official code, NMS begins with as many candidates as there are queries;
            ``nms_candidates`` is another number. ``keep_zero_scores`` says that a threshold of 0 drops nothing.
        num_query: how many queries the head has.
        rescale: give boxes of the original image.
        with_nms: drop duplicates; the config has to have ``nms``.

    Returns:
        ``bboxes`` [n, 4] xyxy in pixels, ``scores`` [n], ``labels`` [n].
    """
    most = config.get("max_per_img", num_query)
    candidates = config.get("nms_candidates", num_query) if with_nms else most
    scores, index = cls_score.sigmoid().view(-1).topk(candidates)  # of [num_queries * num_classes]
    num_classes = cls_score.shape[-1]
    labels, boxes = index % num_classes, bbox_pred[index // num_classes]
    threshold = config.get("score_thr", 0)
    if threshold > 0 or not config.get("keep_zero_scores", False):
        is_kept = scores > threshold
        scores, boxes, labels = scores[is_kept], boxes[is_kept], labels[is_kept]
    h, w = meta["img_shape"][:2]
    boxes = bbox_cxcywh_to_xyxy(boxes) * scale(meta, boxes)
    boxes[:, 0::2].clamp_(min=0, max=w)
    boxes[:, 1::2].clamp_(min=0, max=h)
    if rescale:
        boxes = boxes / boxes.new_tensor(meta["scale_factor"]).repeat(2)
    if with_nms and len(boxes):  # mmcv's NMS fails without any
        found, keep = batched_nms(boxes, scores, labels, config["nms"])  # [n, 5], its scores may have been lowered
        boxes, scores, labels = found[:most, :4], found[:most, 4], labels[keep][:most]
    return InstanceData(bboxes=boxes, scores=scores, labels=labels)
