"""What the query heads of Co-Deformable-DETR and Co-DINO share: branches, losses of layers, passes for other heads."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList, reduce_mean
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn
from torch.nn import functional

from ddq_port.registry import MODELS, TASK_UTILS

from .detections import detections
from .positives import AuxQueries, Positives, aux_queries
from .targets import Targets, matched, scale

#: Losses of a layer: of classes, of boxes, of their overlap.
LayerLosses = tuple[Tensor, Tensor, Tensor]


class HeadOutput(NamedTuple):
    """What a query head gives.

    Attributes:
        cls_scores: [num_layers, bs, num_queries, num_classes] logits.
        bbox_preds: [num_layers, bs, num_queries, 4] cxcywh in [0, 1].
        enc_scores: [bs, m, num_classes] logits of the encoder's tokens, or of those that became queries.
        enc_bboxes: [bs, m, 4] cxcywh in [0, 1].
        features: per level [bs, dim, h, w]: the memory as maps, and one level more.
    """

    cls_scores: Tensor
    bbox_preds: Tensor
    enc_scores: Tensor
    enc_bboxes: Tensor
    features: list[Tensor]


class QueryHead(BaseModule):
    """A head with a transformer of its own, whose decoder serves the queries of further heads, too.

    Args:
        num_classes: number of classes.
        num_query: how many queries there are.
        transformer: config.
        positional_encoding: config; ``num_feats`` is half the width of the transformer.
        loss_cls: config, with ``use_sigmoid=True``.
        loss_bbox: config.
        loss_iou: config.
        num_reg_fcs: layers in front of the last of a box branch.
        sync_cls_avg_factor: the number of objects in the classification loss is the mean of all processes.
        max_pos_coords: largest number of queries that a further head gives for an image.
        lambda_1: weight of the losses of such queries.
        use_zero_padding: see :func:`.positives.aux_queries`.
        train_cfg: with ``assigner``; None if the head is not to be trained.
        test_cfg: see :func:`.detections.detections`.

    Raises:
        ValueError: if the loss has a class for the background, or the widths do not fit.
    """

    #: Of the box before it is refined.
    reference_eps: float

    def __init__(
        self,
        num_classes: int,
        num_query: int,
        transformer: dict,
        positional_encoding: dict,
        loss_cls: dict,
        loss_bbox: dict,
        loss_iou: dict,
        num_reg_fcs: int = 2,
        sync_cls_avg_factor: bool = False,
        max_pos_coords: int = 300,
        lambda_1: float = 1,
        use_zero_padding: bool = False,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        if not loss_cls.get("use_sigmoid", False):
            raise ValueError("query_head.loss_cls has a class for the background; expected use_sigmoid=True.")
        self.num_classes, self.num_query = num_classes, num_query
        self.sync_cls_avg_factor = sync_cls_avg_factor
        self.max_pos_coords = max_pos_coords
        self.lambda_1 = lambda_1
        self.use_zero_padding = use_zero_padding
        self.test_cfg = test_cfg or {}
        if train_cfg:
            self.assigner = TASK_UTILS.build(train_cfg["assigner"])
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        self.positional_encoding = MODELS.build(positional_encoding)
        self.transformer = MODELS.build(transformer)
        self.embed_dims = self.transformer.embed_dims
        if 2 * positional_encoding["num_feats"] != self.embed_dims:
            raise ValueError(
                f"query_head.positional_encoding.num_feats is {positional_encoding['num_feats']}; "
                f"expected {self.embed_dims // 2}, half the width of the transformer."
            )
        self._init_layers(num_reg_fcs)

    def _init_layers(self, num_reg_fcs: int) -> None:
        dim = self.embed_dims
        self.downsample = nn.Sequential(nn.Conv2d(dim, dim, 3, stride=2, padding=1), nn.GroupNorm(32, dim))
        hidden = [layer for _ in range(num_reg_fcs) for layer in (nn.Linear(dim, dim), nn.ReLU())]
        self.cls_branches = self._branches(nn.Linear(dim, self.num_classes))
        self.reg_branches = self._branches(nn.Sequential(*hidden, nn.Linear(dim, 4)))

    def _branches(self, branch: nn.Module) -> nn.ModuleList:
        """Return copies of a branch, one for each layer of the decoder, and one for the encoder."""
        return nn.ModuleList([copy.deepcopy(branch) for _ in range(self.transformer.decoder.num_layers + 1)])

    def init_weights(self) -> None:
        """Initialise transformer and branches; at first each query keeps its box, and each score is 0.01."""
        self.transformer.init_weights()
        for branch in self.cls_branches:
            nn.init.constant_(branch.bias, bias_init_with_prob(0.01))
        for branch in self.reg_branches:
            nn.init.zeros_(branch[-1].weight)
            nn.init.zeros_(branch[-1].bias)

    @abstractmethod
    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the loss terms.

        Args:
            x: per level [bs, dim, h, w].
            batch_data_samples: with objects.

        Returns:
            The terms, and ``features`` as of :class:`HeadOutput`.
        """

    def levels(self, x: Sequence[Tensor], batch_img_metas: Sequence[dict]) -> tuple[list[Tensor], list[Tensor]]:
        """Return masks [bs, h, w] bool, True outside of the image, and encodings [bs, dim, h, w] of each level."""
        whole = x[0].new_ones(len(x[0]), *batch_img_metas[0]["batch_input_shape"])
        for mask, meta in zip(whole, batch_img_metas):
            h, w = meta["img_shape"][:2]
            mask[:h, :w] = 0
        masks = [functional.interpolate(whole[None], size=level.shape[-2:]).to(torch.bool).squeeze(0) for level in x]
        return masks, [self.positional_encoding(mask) for mask in masks]

    def predictions(self, hidden_states: Tensor, references: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return ``cls_scores`` and ``bbox_preds`` as of :class:`HeadOutput`.

        Args:
            hidden_states: [num_layers, bs, num_queries, dim].
            references: for each layer [bs, num_queries, 4] cxcywh in [0, 1], the boxes it refines.
        """
        scores, boxes = [], []
        for layer, (states, reference) in enumerate(zip(hidden_states, references)):
            scores.append(self.cls_branches[layer](states))
            delta = self.reg_branches[layer](states)
            boxes.append((delta + inverse_sigmoid(reference, eps=self.reference_eps)).sigmoid())
        return torch.stack(scores), torch.stack(boxes)  # [num_layers, bs, num_queries, num_classes], [..., 4]

    def layer_losses(
        self, cls_scores: Tensor, bbox_preds: Tensor, targets: Targets, batch_img_metas: Sequence[dict]
    ) -> LayerLosses:
        """Compute the losses of a layer.

        Args:
            cls_scores: [bs, num_queries, num_classes] logits.
            bbox_preds: [bs, num_queries, 4] cxcywh in [0, 1].
            targets: of these queries.
            batch_img_metas: with ``img_shape`` (h, w) in pixels.
        """
        factors = torch.cat(  # [bs * num_queries, 4]
            [scale(meta, boxes).repeat(len(boxes), 1) for meta, boxes in zip(batch_img_metas, bbox_preds)]
        )
        # [bs * num_queries, ...]
        bbox_preds, cls_scores = bbox_preds.reshape(-1, 4), cls_scores.reshape(-1, self.num_classes)
        average = float(targets.num_positives)
        if self.sync_cls_avg_factor:
            average = reduce_mean(cls_scores.new_tensor([average]))
        average = max(average, 1)
        of_classes = self.classification_loss(cls_scores, bbox_preds, targets, average)
        count = torch.clamp(reduce_mean(of_classes.new_tensor([targets.num_positives])), min=1).item()
        of_overlap = self.loss_iou(
            bbox_cxcywh_to_xyxy(bbox_preds) * factors,
            bbox_cxcywh_to_xyxy(targets.bboxes) * factors,
            targets.bbox_weights,
            avg_factor=count,
        )
        of_boxes = self.loss_bbox(bbox_preds, targets.bboxes, targets.bbox_weights, avg_factor=count)
        return of_classes, of_boxes, of_overlap

    @abstractmethod
    def classification_loss(
        self, cls_scores: Tensor, bbox_preds: Tensor, targets: Targets, average: Tensor | float
    ) -> Tensor:
        """Compute the classification loss of queries.

        Args:
            cls_scores: [bs * num_queries, num_classes] logits.
            bbox_preds: [bs * num_queries, 4] cxcywh in [0, 1].
            targets: of these queries.
            average: divisor.
        """

    def matched_losses(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        batch_gt_instances: InstanceList,
        batch_img_metas: Sequence[dict],
    ) -> LayerLosses:
        """Match the queries of a layer and compute its losses; arguments as of :func:`.targets.matched`."""
        targets = matched(
            self.assigner, cls_scores, bbox_preds, batch_gt_instances, batch_img_metas, self.num_classes
        )
        return self.layer_losses(cls_scores, bbox_preds, targets, batch_img_metas)

    def loss_aux(
        self, x: Sequence[Tensor], positives: Positives, batch_img_metas: Sequence[dict], head: int
    ) -> dict[str, Tensor]:
        """Compute the loss terms of a pass of the decoder on what another head was trained with.

        Args:
            x: as :meth:`loss` returned them.
            positives: of the other head.
            batch_img_metas: with ``img_shape`` and ``batch_input_shape`` (h, w) in pixels.
            head: number of the other head.
        """
        queries = aux_queries(
            positives,
            x,
            batch_img_metas,
            self.num_classes,
            self.max_pos_coords,
            self.use_zero_padding,
            self.transformer.decoder.layers[0].attentions[0].num_heads,
        )
        masks, _ = self.levels(x[:-1], batch_img_metas)
        states, references = self.transformer.forward_aux(
            x[:-1], masks, queries.boxes, queries.features, self.reg_branches, queries.attn_masks, head
        )
        # [num_layers, num_queries, bs, dim] -> [num_layers, bs, num_queries, dim]
        scores, boxes = self.predictions(states.permute(0, 2, 1, 3), references)
        losses = [self._aux_losses(*layer, queries, batch_img_metas) for layer in zip(scores, boxes)]
        return decoder_terms(losses, suffix="_aux")

    def _aux_losses(
        self, cls_scores: Tensor, bbox_preds: Tensor, queries: AuxQueries, batch_img_metas: Sequence[dict]
    ) -> LayerLosses:
        if queries.label_weights.shape != queries.labels.shape:
            # fewer boxes than queries were wanted: the official code drops the layer's losses
            return tuple(cls_scores.mean() * 0 for _ in range(3))
        labels = queries.labels.reshape(-1)  # [bs * num_queries]
        targets = Targets(
            labels=labels,
            label_weights=queries.label_weights.reshape(-1),
            bboxes=queries.targets.reshape(-1, 4),
            bbox_weights=queries.bbox_weights.reshape(-1, 4),
            num_positives=int(((labels >= 0) & (labels < self.num_classes)).sum()),
        )
        losses = self.layer_losses(cls_scores, bbox_preds, targets, batch_img_metas)
        return tuple(loss * self.lambda_1 for loss in losses)

    def predict(self, x: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = False) -> InstanceList:
        """Detect objects.

        Args:
            x: per level [bs, dim, h, w].
            batch_data_samples: with ``img_shape`` and ``batch_input_shape``.
            rescale: give boxes of the original image.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_feat(self(x, metas), metas, rescale, with_nms=self.test_cfg.get("nms") is not None)

    def predict_by_feat(
        self, outputs: HeadOutput, batch_img_metas: Sequence[dict], rescale: bool, with_nms: bool
    ) -> InstanceList:
        """Return the detections of the last layer; see :func:`.detections.detections`."""
        return [
            detections(scores, boxes, meta, self.test_cfg, self.num_query, rescale, with_nms)
            for scores, boxes, meta in zip(outputs.cls_scores[-1], outputs.bbox_preds[-1], batch_img_metas)
        ]


def layer_terms(losses: LayerLosses, prefix: str = "", suffix: str = "") -> dict[str, Tensor]:
    """Return the losses of a layer by their names."""
    names = ("loss_cls", "loss_bbox", "loss_iou")
    return {f"{prefix}{name}{suffix}": value for name, value in zip(names, losses)}


def decoder_terms(losses: Sequence[LayerLosses], prefix: str = "", suffix: str = "") -> dict[str, Tensor]:
    """Return the losses of the decoder's layers by their names: of the last one first, then those with a number."""
    found = layer_terms(losses[-1], prefix, suffix)
    for number, layer in enumerate(losses[:-1]):
        found.update(layer_terms(layer, f"d{number}.{prefix}", suffix))
    return found
