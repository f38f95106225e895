"""The head of DDQ FCN as one of proposals: its best distinct queries go on to the refinement stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.utils import levels_to_images, unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional

from ddq_port.models.ddq_fcn.head import DDQFCNHead
from ddq_port.models.ddq_fcn.selection import DensePredictions, Queries
from ddq_port.registry import MODELS


@MODELS.register_module()
class DDQFCNRPN(DDQFCNHead):
    """Give proposals with features to refine.

    Source: DDQ paper, section 3, and jshilong/DDQ, branch main, ``projects/models/ddq_fcn_rpn.py``.

    Args:
        num_distinct_queries: largest number of proposals of an image.
        options: as of the base class; ``num_classes`` is that of the detector, for proposals are trained with classes.
    """

    def __init__(self, num_classes: int, in_channels: int, num_distinct_queries: int = 300, **options: object) -> None:
        super().__init__(num_classes, in_channels, **options)
        self.num_distinct_queries = num_distinct_queries

    def _init_layers(self) -> None:
        super()._init_layers()
        self.compress = nn.Linear(2 * self.feat_channels, self.feat_channels)

    def loss_and_predict(
        self, x: Sequence[Tensor], batch_data_samples: SampleList, proposal_cfg: dict | None = None
    ) -> tuple[dict[str, list[Tensor] | Tensor], InstanceList]:
        """Compute the loss terms and the proposals.

        Args:
            x: per level [bs, in_channels, h, w].
            batch_data_samples: with objects and ``img_shape``.
            proposal_cfg: not looked at.

        Returns:
            The terms, see :meth:`DDQFCNHead.query_losses`, and the proposals, see :meth:`predict`.
        """
        batch_gt_instances, _, batch_img_metas = unpack_gt_instances(batch_data_samples)
        main, aux = self(x)
        distinct_queries, all_queries = self.queries(main, aux)
        proposals = self.proposals(main, distinct_queries, batch_img_metas)
        return self.query_losses(distinct_queries, all_queries, batch_gt_instances, batch_img_metas), proposals

    def predict(self, x: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = False) -> InstanceList:
        """Return the proposals of each image, as many for each.

        Args:
            x: per level [bs, in_channels, h, w].
            batch_data_samples: with ``img_shape``.
            rescale: not looked at; proposals are of the resized image.

        Returns:
            Per image ``bboxes`` [n, 4] xyxy in pixels, ``features`` [n, feat_channels] and ``imgs_whwh`` [n, 4], the
            image's (w, h, w, h) in pixels. Of an image with fewer queries than another the rest are zeros, and live.
        """
        main, _ = self(x)
        return self.proposals(main, self.queries(main, None)[0], [each.metainfo for each in batch_data_samples])

    def proposals(
        self, main: DensePredictions, queries: Sequence[Queries], batch_img_metas: Sequence[dict]
    ) -> InstanceList:
        """Return the proposals that distinct queries make; see :meth:`predict`."""
        of_classes, of_boxes = levels_to_images(main.cls_feats), levels_to_images(main.reg_feats)
        chosen = []
        for of_class, of_box, each in zip(of_classes, of_boxes, queries):
            # all points at once, as in the official code: a product with fewer rows may round otherwise
            features = self.compress(torch.cat([of_class, of_box], dim=-1).detach())  # [num_points, feat_channels]
            best = each.scores.max(-1).values.sort(descending=True).indices[: self.num_distinct_queries]
            chosen.append((each.bboxes.detach()[best], features[each.points[best]]))
        length = max(len(bboxes) for bboxes, _ in chosen)
        return [
            InstanceData(
                bboxes=_padded(bboxes, length),
                features=_padded(features, length),
                imgs_whwh=_extent(meta, bboxes, length),
            )
            for (bboxes, features), meta in zip(chosen, batch_img_metas)
        ]


def _padded(rows: Tensor, length: int) -> Tensor:
    """Return [length, c] of ``rows`` [n, c], the rest zeros."""
    return functional.pad(rows, (0, 0, 0, length - len(rows)))


def _extent(meta: dict, like: Tensor, length: int) -> Tensor:
    height, width = meta["img_shape"][:2]
    return like.new_tensor([[width, height, width, height]]).repeat(length, 1)  # [length, 4]
