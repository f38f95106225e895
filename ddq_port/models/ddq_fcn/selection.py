"""How dense predictions become queries: the best of each level, then those distinct from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from mmcv.ops import batched_nms
from mmdet.models.utils import filter_scores_and_topk
from mmdet.structures.bbox import distance2bbox
from torch import Tensor


class DensePredictions(NamedTuple):
    """What a head predicts at every point, per level.

    Attributes:
        cls_scores: [bs, num_classes, h, w] probabilities in [0, 1].
        bbox_preds: [bs, 4, h, w] distances to left, top, right, bottom in strides, > 0.
        cls_feats: [bs, feat_channels, h, w] that classes were predicted from.
        reg_feats: [bs, feat_channels, h, w] that boxes were predicted from.
    """

    cls_scores: list[Tensor]
    bbox_preds: list[Tensor]
    cls_feats: list[Tensor]
    reg_feats: list[Tensor]


@dataclass(frozen=True)
class Queries:
    """Queries of one image.

    Attributes:
        scores: [n, num_classes] probabilities in [0, 1].
        bboxes: [n, 4] xyxy in pixels of the padded image, not clipped.
        points: [n] where each stands among all points, level by level, row by row.
    """

    scores: Tensor
    bboxes: Tensor
    points: Tensor

    def at(self, indices: Tensor) -> Queries:
        """Return the queries at ``indices`` [m], in their order."""
        return Queries(self.scores[indices], self.bboxes[indices], self.points[indices])


def best_of_levels(
    predictions: DensePredictions, image: int, priors: Sequence[Tensor], strides: Sequence[int], limit: int
) -> Queries:
    """Take the points of an image with the highest scores, of each level as many as ``limit``.

    Args:
        predictions: of a batch.
        image: its number in the batch.
        priors: per level [h * w, 2] (x, y) in pixels.
        strides: of each level in pixels.
        limit: largest number of points of a level.
    """
    first, parts = 0, []
    for scores, distances, points, stride in zip(predictions.cls_scores, predictions.bbox_preds, priors, strides):
        scores = scores[image].permute(1, 2, 0).flatten(0, 1)  # [h * w, num_classes]
        distances = distances[image].permute(1, 2, 0).reshape(-1, 4)  # [h * w, 4]
        highest = scores.max(-1).values.reshape(-1, 1)  # [h * w, 1]
        given = dict(distances=distances, points=points, scores=scores)
        *_, indices, best = filter_scores_and_topk(highest, 0, limit, given)
        bboxes = distance2bbox(best["points"], best["distances"] * stride)
        parts.append(Queries(best["scores"], bboxes, indices + first))
        first += len(scores)
    return Queries(
        torch.cat([part.scores for part in parts]),  # [n, num_classes]
        torch.cat([part.bboxes for part in parts]),  # [n, 4]
        torch.cat([part.points for part in parts]),  # [n]
    )


def distinct(queries: Queries, nms: dict) -> Queries:
    """Keep what NMS of all classes together keeps, the highest scores first.

    Args:
        queries: of an image.
        nms: config of mmcv's ``batched_nms``.
    """
    if not len(queries.scores):
        return queries
    highest = queries.scores.max(-1).values  # [n]
    _, keep = batched_nms(queries.bboxes, highest, torch.ones_like(highest), nms)
    return queries.at(keep)
