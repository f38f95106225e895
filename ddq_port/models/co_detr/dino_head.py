"""The query head of Co-DINO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from torch import Tensor

from ddq_port.registry import MODELS

from .denoising import CdnQueryGenerator, DenoisingQueries
from .query_head import HeadOutput, LayerLosses, QueryHead, decoder_terms, layer_terms
from .targets import Targets, of_denoising
from .tokens import maps


@MODELS.register_module()
class CoDINOHead(QueryHead):
    """Give queries in two stages, and in training denoising queries besides.

    Args:
        transformer: config of a ``CoDinoTransformer``.
        dn_cfg: ``noise_scale`` and ``group_cfg`` as of :class:`.denoising.CdnQueryGenerator`.
        num_query: how many queries there are.
        detections_in_training: make detections of each batch in training, too. They serve masks only, which this port
            does not have, but the official code makes them.
        options: as of the base class.
    """

    reference_eps = 1e-3

    def __init__(
        self,
        transformer: dict,
        dn_cfg: dict,
        num_query: int = 900,
        detections_in_training: bool = True,
        **options: Any,
    ) -> None:
        self.dn_cfg = dn_cfg
        self.detections_in_training = detections_in_training
        transformer = {**transformer, "two_stage_num_proposals": num_query}
        super().__init__(transformer=transformer, num_query=num_query, **options)

    def _init_layers(self, num_reg_fcs: int) -> None:
        super()._init_layers(num_reg_fcs)
        self.dn_generator = CdnQueryGenerator(self.num_classes, self.embed_dims, self.num_query, **self.dn_cfg)

    def forward(
        self, x: Sequence[Tensor], batch_img_metas: Sequence[dict], denoising: DenoisingQueries | None = None
    ) -> HeadOutput:
        """Run transformer and branches.

        Args:
            x: per level [bs, dim, h, w].
            batch_img_metas: with ``img_shape`` and ``batch_input_shape`` (h, w) in pixels.
            denoising: queries that go before the others.
        """
        given = (None, None, None) if denoising is None else denoising[:3]
        found = self.transformer(x, *self.levels(x, batch_img_metas), *given, self.reg_branches, self.cls_branches)
        features = maps(found.memory, x)
        features.append(self.downsample(features[-1]))
        # [num_layers, num_queries_total, bs, dim] -> [num_layers, bs, num_queries_total, dim]
        states = found.hidden_states.permute(0, 2, 1, 3)
        if denoising is not None and denoising.length == 0:
            # in place, or rows would lie in another order; without objects the embedding has to have a gradient, too
            states[0] += self.dn_generator.label_embedding.weight[0, 0] * 0.0
        scores, boxes = self.predictions(states, found.references)
        return HeadOutput(scores, boxes, found.topk_scores, found.topk_boxes, features)

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the loss terms; see the base class."""
        batch_gt_instances, _, batch_img_metas = unpack_gt_instances(batch_data_samples)
        denoising = self.dn_generator.generate(batch_gt_instances, batch_img_metas)
        outputs = self(x, batch_img_metas, denoising)
        length = denoising.length
        of_encoder = self.matched_losses(outputs.enc_scores, outputs.enc_bboxes, batch_gt_instances, batch_img_metas)
        losses = [
            self.matched_losses(scores[:, length:], boxes[:, length:], batch_gt_instances, batch_img_metas)
            for scores, boxes in zip(outputs.cls_scores, outputs.bbox_preds)
        ]
        of_denoising_queries: list[LayerLosses] = []
        for scores, boxes in zip(outputs.cls_scores[:, :, :length], outputs.bbox_preds[:, :, :length]):
            targets = of_denoising(boxes, batch_gt_instances, batch_img_metas, denoising.num_groups, self.num_classes)
            of_denoising_queries.append(self.layer_losses(scores, boxes, targets, batch_img_metas))
        if self.detections_in_training:
            with torch.no_grad():
                self.predict_by_feat(outputs, batch_img_metas, rescale=False, with_nms=False)
        terms = layer_terms(of_encoder, "enc_") | decoder_terms(losses) | decoder_terms(of_denoising_queries, "dn_")
        return terms, outputs.features

    def classification_loss(
        self, cls_scores: Tensor, bbox_preds: Tensor, targets: Targets, average: Tensor | float
    ) -> Tensor:
        """Compute the classification loss of queries, whose scores are to be the overlap with their object."""
        if not len(cls_scores):
            return cls_scores.new_zeros(1)
        index = ((targets.labels >= 0) & (targets.labels < self.num_classes)).nonzero().squeeze(1)
        quality = targets.label_weights.new_zeros(targets.labels.shape)
        quality[index] = bbox_overlaps(
            bbox_cxcywh_to_xyxy(bbox_preds[index]).detach(),
            bbox_cxcywh_to_xyxy(targets.bboxes[index]),
            is_aligned=True,
        )
        return self.loss_cls(cls_scores, (targets.labels, quality), weight=targets.label_weights, avg_factor=average)
