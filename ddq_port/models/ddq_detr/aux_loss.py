"""Auxiliary one-to-many loss of dense queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmdet.utils import InstanceList, reduce_mean
from torch import Tensor, nn

from ddq_port.registry import MODELS, TASK_UTILS


@dataclass(frozen=True)
class DenseTargets:
    """Targets of one image.

    Attributes:
        labels: [num_queries] class index, ``num_classes`` for background.
        label_weights: [num_queries]; all zero on an image without objects.
        bboxes: [num_queries, 4] xyxy in pixels, zero for background.
        quality: [num_queries] normalised alignment in [0, 1], the soft target of the score.
    """

    labels: Tensor
    label_weights: Tensor
    bboxes: Tensor
    quality: Tensor


@MODELS.register_module()
class DenseAuxLoss(nn.Module):
    """Quality focal loss and GIoU loss over dense queries, weighted by task alignment.

    Source: DDQ paper, section 3.3, and jshilong/DDQ, branch ddq_detr, ``projects/models/utils.py`` (AuxLossModule).

    Args:
        assigner: config of the assigner; ``ddq_port.TopkHungarianAssigner`` with ``topk=4`` by default.
        loss_cls: config of the class loss, given probabilities.
        loss_bbox: config of the box loss.
    """

    def __init__(
        self, assigner: dict | None = None, loss_cls: dict | None = None, loss_bbox: dict | None = None
    ) -> None:
        super().__init__()
        self.loss_cls = MODELS.build(
            loss_cls or dict(type="mmdet.QualityFocalLoss", use_sigmoid=True, activated=True, beta=2.0, loss_weight=1.0)
        )
        self.loss_bbox = MODELS.build(loss_bbox or dict(type="mmdet.GIoULoss", loss_weight=2.0))
        self.assigner = TASK_UTILS.build(assigner or dict(type="ddq_port.TopkHungarianAssigner", topk=4))

    def loss(
        self, scores: Tensor, bboxes: Tensor, batch_gt_instances: InstanceList, batch_img_metas: list[dict]
    ) -> dict[str, list[Tensor]]:
        """Compute the loss terms of a batch, one per image.

        Runs in float32 also under autocast: binary cross entropy on probabilities is not defined in half precision.

        Args:
            scores: [bs, num_queries, num_classes] probabilities in [0, 1].
            bboxes: [bs, num_queries, 4] xyxy in pixels.
            batch_gt_instances: per image ``bboxes`` [n, 4] xyxy in pixels and ``labels`` [n]; n may be 0.
            batch_img_metas: per image, needs ``img_shape`` (h, w).

        Returns:
            ``aux_loss_cls`` and ``aux_loss_bbox``, each a list of bs scalars normalised over the whole (distributed)
            batch.
        """
        with torch.autocast(scores.device.type, enabled=False):
            return self._loss(to_float32(scores), to_float32(bboxes), batch_gt_instances, batch_img_metas)

    def _loss(
        self, scores: Tensor, bboxes: Tensor, batch_gt_instances: InstanceList, batch_img_metas: list[dict]
    ) -> dict[str, list[Tensor]]:
        targets = [self.targets(*per_image) for per_image in zip(scores, bboxes, batch_gt_instances, batch_img_metas)]
        losses_cls, losses_bbox, cls_factors, bbox_factors = [], [], [], []
        for score, bbox, target in zip(scores, bboxes, targets):
            losses_cls.append(
                self.loss_cls(score, (target.labels, target.quality), target.label_weights, avg_factor=1.0)
            )
            loss_bbox, weight_sum = self._bbox_loss(bbox, target, score.size(-1))
            losses_bbox.append(loss_bbox)
            cls_factors.append(target.quality.sum())
            bbox_factors.append(weight_sum)
        return dict(
            aux_loss_cls=_normalise(losses_cls, cls_factors), aux_loss_bbox=_normalise(losses_bbox, bbox_factors)
        )

    def _bbox_loss(self, bboxes: Tensor, target: DenseTargets, num_classes: int) -> tuple[Tensor, Tensor]:
        """Return the summed box loss of one image and the sum of its weights."""
        pos = ((target.labels >= 0) & (target.labels < num_classes)).nonzero().squeeze(1)
        if len(pos) == 0:
            # keeps the box branch in the graph, so that every rank of a distributed run has its gradient
            return bboxes.sum() * 0, bboxes.new_zeros(())
        weight = target.quality[pos]
        return self.loss_bbox(bboxes[pos], target.bboxes[pos], weight=weight, avg_factor=1.0), weight.sum()

    @torch.no_grad()
    def targets(self, scores: Tensor, bboxes: Tensor, gt_instances: object, img_meta: dict) -> DenseTargets:
        """Assign the queries of one image; shapes as in :meth:`loss` without the batch axis."""
        num_queries, num_classes = scores.shape
        labels = torch.full((num_queries,), num_classes, dtype=torch.long, device=scores.device)
        box_targets = torch.zeros_like(bboxes)
        quality = bboxes.new_zeros(num_queries)
        if len(gt_instances.labels) == 0:
            return DenseTargets(labels, bboxes.new_zeros(num_queries), box_targets, quality)

        assigned = self.assigner.assign(scores, bboxes, gt_instances, img_meta)
        labels[assigned.query_inds] = gt_instances.labels[assigned.gt_inds]
        box_targets[assigned.query_inds] = gt_instances.bboxes[assigned.gt_inds].to(box_targets.dtype)
        # the best-aligned query of an object gets the IoU of its best-localised one
        alignment, iou = (
            _largest_of_object(values, assigned.gt_inds, len(gt_instances.labels))
            for values in (assigned.alignments, assigned.ious)
        )
        quality[assigned.query_inds] = assigned.alignments / (alignment + 10e-8) * iou
        return DenseTargets(labels, bboxes.new_ones(num_queries), box_targets, quality)


def _largest_of_object(values: Tensor, objects: Tensor, num_objects: int) -> Tensor:
    """Return, for each of ``values`` [n], the largest of those with the same entry in ``objects`` [n]."""
    largest = values.new_zeros(num_objects).scatter_reduce(0, objects, values, "amax", include_self=False)
    return largest[objects]


def to_float32(x: Tensor) -> Tensor:
    """Return half precision as float32, anything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _normalise(losses: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    """Divide each loss by the sum of ``factors``, averaged over ranks and at least 1."""
    factor = reduce_mean(sum(factors)).clamp(min=1).item()
    return [loss / factor for loss in losses]
