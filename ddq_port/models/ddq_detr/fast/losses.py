"""Loss terms of all layers and images at once, without targets of the size of the predictions.

The formulas are those of mmdet's ``FocalLoss``, ``L1Loss``, ``GIoULoss`` and ``QualityFocalLoss`` (activated). Only a
query that is given an object has a target; what a class loss makes of all others depends on the prediction alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss, QualityFocalLoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from .costs import overlaps
from .noise import Objects

#: What mmdet adds to the number that a loss is divided by.
_EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Pairs:
    """Queries and the objects that they are to find; a set is a layer, or the encoder.

    Attributes:
        sets: [n] int64, ascending.
        images: [n] int64.
        queries: [n] int64.
        objects: [n] int64.
    """

    sets: Tensor
    images: Tensor
    queries: Tensor
    objects: Tensor

    def of(self, predictions: Tensor) -> Tensor:
        """Return the rows of ``predictions`` [sets, bs, num_queries, k] that have an object, [n, k]."""
        return predictions[self.sets, self.images, self.queries]

    def sums(self, values: Tensor, num_sets: int) -> Tensor:
        """Sum ``values`` [n] for each set, [num_sets]."""
        sets = torch.arange(num_sets, device=values.device)
        return (values * (self.sets == sets[:, None])).sum(1)


def check_losses(head: torch.nn.Module) -> None:
    """Refuse losses that are not computed here.

    Raises:
        ValueError: naming the first one.
    """
    dense = head.aux_loss_for_dense
    expected = {
        "bbox_head.loss_cls": (head.loss_cls, FocalLoss, False),
        "bbox_head.loss_bbox": (head.loss_bbox, L1Loss, None),
        "bbox_head.loss_iou": (head.loss_iou, GIoULoss, None),
        "aux_loss_for_dense.loss_cls": (dense.loss_cls, QualityFocalLoss, True),
        "aux_loss_for_dense.loss_bbox": (dense.loss_bbox, GIoULoss, None),
    }
    for name, (loss, kind, activated) in expected.items():
        if type(loss) is not kind or loss.reduction != "mean" or getattr(loss, "activated", None) != activated:
            raise ValueError(f"numerics='fast': {name} is {loss}; expected {kind.__name__}, or numerics='legacy'.")
    if head.bg_cls_weight:
        raise ValueError(f"numerics='fast': bg_cls_weight is {head.bg_cls_weight}; expected 0, or numerics='legacy'.")


def focal_sums(loss: FocalLoss, logits: Tensor, pairs: Pairs, labels: Tensor, active: Tensor | None) -> Tensor:
    """Return the class loss of each set, summed over images, queries and classes: [sets].

    Args:
        loss: whose exponent and weights are taken.
        logits: [sets, bs, num_queries, num_classes].
        pairs: queries with an object.
        labels: [n] its class.
        active: [sets, bs, num_queries] bool, queries that count, or None for all.
    """
    elements = (1 - loss.alpha) * logits.sigmoid().pow(loss.gamma) * F.softplus(logits)
    positive = pairs.of(logits).gather(1, labels[:, None])[:, 0]  # [n, num_classes] -> [n]
    terms = loss.alpha * (1 - positive.sigmoid()).pow(loss.gamma) * F.softplus(-positive)
    elements = elements.index_put((pairs.sets, pairs.images, pairs.queries, labels), terms)
    of_queries = elements.sum(-1)  # [sets, bs, num_queries]
    if active is not None:
        of_queries = of_queries * active
    return loss.loss_weight * of_queries.sum((1, 2))


def box_losses(
    l1: L1Loss, iou: GIoULoss, boxes: Tensor, pairs: Pairs, objects: Objects, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return L1 and IoU loss of each set, summed over its pairs: both [sets].

    Args:
        l1: whose weight is taken.
        iou: whose weight is taken.
        boxes: [sets, bs, num_queries, 4] cxcywh in [0, 1].
        pairs: queries with an object.
        objects: for the sizes of images, in whose pixels the IoU is taken.
        targets: boxes of all objects, [bs, most, 4] cxcywh in [0, 1].
    """
    found, wanted = pairs.of(boxes), targets[pairs.images, pairs.objects]  # [n, 4] each
    sizes = objects.sizes[pairs.images, 0]  # [n, 4]
    generalised = overlaps(bbox_cxcywh_to_xyxy(found) * sizes, bbox_cxcywh_to_xyxy(wanted) * sizes, True, iou.eps)
    of_l1 = pairs.sums((found - wanted).abs().sum(-1), len(boxes))
    return l1.loss_weight * of_l1, iou.loss_weight * pairs.sums(1 - generalised, len(boxes))


def normalised(sums: Tensor, factors: Tensor) -> Tensor:
    """Divide sums by the number of their pairs, at least 1, as mmdet does."""
    return sums / (factors.clamp(min=1) + _EPS)


@dataclass(frozen=True)
class DenseSums:
    """Losses of dense queries, before they are divided by the sum of the qualities.

    Attributes:
        classes: [sets, bs].
        boxes: [sets, bs].
        quality: [sets], summed over images.
    """

    classes: Tensor
    boxes: Tensor
    quality: Tensor


def dense_sums(
    dense: torch.nn.Module, scores: Tensor, boxes: Tensor, pairs: Pairs, objects: Objects
) -> DenseSums:
    """Return the losses of dense queries.

    Args:
        dense: :class:`~..aux_loss.DenseAuxLoss`, whose weights and exponents are taken.
        scores: [sets, bs, num_dense, num_classes] in [0, 1].
        boxes: [sets, bs, num_dense, 4] cxcywh in [0, 1].
        pairs: queries with an object.
        objects: of the images.
    """
    num_sets, bs = scores.shape[:2]
    labels = objects.labels[pairs.images, pairs.objects]  # [n]
    sizes, wanted = objects.sizes[pairs.images, 0], objects.boxes[pairs.images, pairs.objects].to(boxes.dtype)
    found = bbox_cxcywh_to_xyxy(pairs.of(boxes)) * sizes  # [n, 4] xyxy in pixels
    positive = pairs.of(scores).gather(1, labels[:, None])[:, 0]  # [n, num_classes] -> [n]
    quality = _quality(dense.assigner, positive, found, wanted, pairs, scores.shape[:2], objects)

    beta = dense.loss_cls.beta
    elements = F.binary_cross_entropy(scores, torch.zeros_like(scores), reduction="none") * scores.pow(beta)
    distance = (quality - positive).abs().pow(beta)
    terms = F.binary_cross_entropy(positive, quality, reduction="none") * distance
    elements = elements.index_put((pairs.sets, pairs.images, pairs.queries, labels), terms)
    classes = elements.sum((2, 3)) * _with_objects(objects, elements)  # [sets, bs]

    generalised = overlaps(found, wanted, True, dense.loss_bbox.eps)
    # [n] of a set and an image -> [sets, bs]
    cells = Pairs(pairs.sets * bs + pairs.images, pairs.images, pairs.queries, pairs.objects)
    of_boxes = cells.sums((1 - generalised) * quality, num_sets * bs).view(num_sets, bs)  # [sets, bs]
    return DenseSums(
        dense.loss_cls.loss_weight * classes / (1 + _EPS),
        dense.loss_bbox.loss_weight * of_boxes / (1 + _EPS),
        pairs.sums(quality, num_sets),
    )


def _with_objects(objects: Objects, like: Tensor) -> Tensor:
    """Return [bs]: 1 for an image with objects, else 0, made where ``like`` is."""
    weights = like.new_ones(len(objects.counts))
    for image, count in enumerate(objects.counts):
        if not count:
            weights[image] = 0
    return weights


@torch.no_grad()
def _quality(
    assigner: object, scores: Tensor, found: Tensor, wanted: Tensor, pairs: Pairs, shape: torch.Size, objects: Objects
) -> Tensor:
    """Return the soft target of each pair, [n]: the best-aligned query of an object gets its largest IoU."""
    ious = overlaps(found, wanted, False)
    alignments = scores**assigner.alpha * ious**assigner.beta
    place = (pairs.sets * shape[1] + pairs.images) * objects.most + pairs.objects  # of the object in its set
    largest = [
        values.new_zeros(shape[0] * shape[1] * objects.most).scatter_reduce(0, place, values, "amax")[place]
        for values in (alignments, ious)
    ]
    return alignments / (largest[0] + 10e-8) * largest[1]
