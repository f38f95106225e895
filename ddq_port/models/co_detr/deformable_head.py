"""The query head of Co-Deformable-DETR."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .query_head import HeadOutput, QueryHead, decoder_terms, layer_terms
from .targets import Targets
from .tokens import maps


@MODELS.register_module()
class CoDeformDETRHead(QueryHead):
    """Give queries in two stages, the first of which tells objects from background only.

    Args:
        options: as of the base class; ``transformer`` is the config of a ``CoDeformableDetrTransformer``.
    """

    reference_eps = 1e-5

    def _init_layers(self, num_reg_fcs: int) -> None:
        super()._init_layers(num_reg_fcs)
        self.query_embedding = nn.Embedding(self.num_query, self.embed_dims)

    def forward(self, x: Sequence[Tensor], batch_img_metas: Sequence[dict]) -> HeadOutput:
        """Run transformer and branches.

        Args:
            x: per level [bs, dim, h, w].
            batch_img_metas: with ``img_shape`` and ``batch_input_shape`` (h, w) in pixels.
        """
        found = self.transformer(
            x, *self.levels(x, batch_img_metas), self.query_embedding.weight, self.reg_branches, self.cls_branches
        )
        features = maps(found.memory, x)
        features.append(self.downsample(features[-1]))
        # [num_layers, num_queries, bs, dim] -> [num_layers, bs, num_queries, dim]
        states = found.hidden_states.permute(0, 2, 1, 3)
        scores, boxes = self.predictions(states, [found.init_reference, *found.references])
        return HeadOutput(scores, boxes, found.enc_scores, found.enc_boxes.sigmoid(), features)

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the loss terms; see the base class."""
        batch_gt_instances, _, batch_img_metas = unpack_gt_instances(batch_data_samples)
        outputs = self(x, batch_img_metas)
        losses = [
            self.matched_losses(*layer, batch_gt_instances, batch_img_metas)
            for layer in zip(outputs.cls_scores, outputs.bbox_preds)
        ]
        objects = [
            InstanceData(bboxes=each.bboxes, labels=torch.zeros_like(each.labels)) for each in batch_gt_instances
        ]
        of_encoder = self.matched_losses(outputs.enc_scores, outputs.enc_bboxes, objects, batch_img_metas)
        return layer_terms(of_encoder, "enc_") | decoder_terms(losses), outputs.features

    def classification_loss(
        self, cls_scores: Tensor, bbox_preds: Tensor, targets: Targets, average: Tensor | float
    ) -> Tensor:
        """Compute the classification loss of queries; see the base class."""
        return self.loss_cls(cls_scores, targets.labels, targets.label_weights, avg_factor=average)
