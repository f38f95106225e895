"""Quality focal loss and GIoU loss of a set of queries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.utils import InstanceList
from torch import Tensor

from ddq_port.models.ddq_detr.aux_loss import DenseAuxLoss, to_float32
from ddq_port.registry import MODELS


@MODELS.register_module()
class QueryLoss(DenseAuxLoss):
    """The loss of DDQ-DETR's dense queries for queries whose number is another in each image.

    Args:
        topk: queries per object.
        assigner: config of the assigner without ``topk``; ``ddq_port.LogitTopkHungarianAssigner`` by default.
        loss_cls: config of the class loss, given probabilities.
        loss_bbox: config of the box loss.
    """

    def __init__(
        self, topk: int, assigner: dict | None = None, loss_cls: dict | None = None, loss_bbox: dict | None = None
    ) -> None:
        quality = dict(
            type="ddq_port.QualityFocalLoss", use_sigmoid=True, activated=True, beta=2.0, loss_weight=1.0
        )
        super().__init__(
            assigner={**(assigner or dict(type="ddq_port.LogitTopkHungarianAssigner")), "topk": topk},
            loss_cls=loss_cls or quality,
            loss_bbox=loss_bbox or dict(type="ddq_port.GIoULoss", loss_weight=2.0),
        )

    def forward(
        self,
        scores: Sequence[Tensor],
        bboxes: Sequence[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
    ) -> dict[str, list[Tensor]]:
        """Compute the loss terms of a batch, one per image; in float32 also under autocast.

        Args:
            scores: per image [num_queries, num_classes] probabilities in [0, 1].
            bboxes: per image [num_queries, 4] xyxy in pixels.
            batch_gt_instances: per image ``bboxes`` [n, 4] xyxy in pixels and ``labels`` [n]; n may be 0.
            batch_img_metas: per image, needs ``img_shape`` (h, w).

        Returns:
            ``loss_cls`` and ``loss_bbox``, each a list of bs scalars normalised over the whole (distributed) batch.
        """
        with torch.autocast(scores[0].device.type, enabled=False):
            terms = self._loss(
                [to_float32(score) for score in scores], [to_float32(box) for box in bboxes],
                batch_gt_instances, batch_img_metas,
            )  # fmt: skip
        return {name.removeprefix("aux_"): values for name, values in terms.items()}
