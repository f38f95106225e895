"""The ATSS head that is trained beside the query head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.models.utils import multi_apply, unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.utils import reduce_mean
from torch import Tensor

from ddq_port.registry import MODELS

from .positives import Positives


@MODELS.register_module()
class CoATSSHead(ATSSHead):
    """mmdet's ATSS head, which tells what it was trained with."""

    def loss_and_positives(
        self, x: Sequence[Tensor], batch_data_samples: SampleList
    ) -> tuple[dict[str, list[Tensor]], Positives]:
        """Compute the loss terms, for each level.

        Args:
            x: per level [bs, dim, h, w].
            batch_data_samples: with objects.

        Returns:
            The terms; and all anchors.
        """
        batch_gt_instances, ignored, batch_img_metas = unpack_gt_instances(batch_data_samples)
        outputs = self(x)
        device = x[0].device
        anchors, flags = self.get_anchors([level.shape[-2:] for level in outputs[0]], batch_img_metas, device=device)
        targets = self.get_targets(
            anchors, flags, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore=ignored
        )
        of_anchors, labels, label_weights, bbox_targets, _, count = targets
        average = reduce_mean(torch.tensor(count, dtype=torch.float, device=device)).item()
        of_classes, of_boxes, of_centres, weights = multi_apply(
            self.loss_by_feat_single,
            of_anchors,
            *outputs,
            labels,
            label_weights,
            bbox_targets,
            avg_factor=average,
        )
        divisor = reduce_mean(sum(weights)).clamp_(min=1).item()
        terms = dict(loss_cls=of_classes, loss_bbox=[term / divisor for term in of_boxes], loss_centerness=of_centres)
        # per level [bs, num_anchors, ...] -> [bs, num_anchors of all, ...]
        return terms, Positives(*(torch.cat(levels, 1) for levels in (of_anchors, labels, bbox_targets)), None)
