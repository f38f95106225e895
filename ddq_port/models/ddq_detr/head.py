"""Prediction head of DDQ-DETR."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import DINOHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList, reduce_mean
from mmengine.model import bias_init_with_prob, constant_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .aux_loss import to_float32
from .queries import QueryLayout, places_of


@MODELS.register_module()
class DDQDETRHead(DINOHead):
    """Branches and losses of sparse (denoising + matching) and dense queries.

    There are two sets of branches of ``num_decoder_layers + 1`` each, the last of each set serving the encoder:
    ``cls_branches`` / ``reg_branches`` for sparse queries, ``aux_cls_branches`` / ``aux_reg_branches`` for dense ones,
    which exist in training only. (The official checkpoints hold 8 + 6 instead of 7 + 7: the dense encoder branch is
    the last of the main list there.)

    Args:
        aux_num_pos: positive dense queries per object.
        float32_boxes: under autocast, detect boxes in float32. False rounds them to half precision, as the legacy code
            does: in bfloat16 neighbouring coordinates are then up to 1/256 of the image apart. Losses take float32.
        **kwargs: of mmdet's ``DINOHead``.

    Raises:
        ValueError: if ``loss_cls`` is not a sigmoid loss.
    """

    def __init__(self, *args, aux_num_pos: int = 4, float32_boxes: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.float32_boxes = float32_boxes
        if not self.loss_cls.use_sigmoid:
            raise ValueError("bbox_head.loss_cls has use_sigmoid=False; expected a sigmoid loss such as FocalLoss.")
        self.aux_loss_for_dense = build_dense_loss(aux_num_pos)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.aux_cls_branches = copy.deepcopy(self.cls_branches)
        self.aux_reg_branches = copy.deepcopy(self.reg_branches)

    def init_weights(self) -> None:
        """Start every branch at a score of 0.01 and at no box refinement."""
        bias = bias_init_with_prob(0.01)
        for branch in [*self.cls_branches, *self.aux_cls_branches]:
            nn.init.constant_(branch.bias, bias)
        for branch in [*self.reg_branches, *self.aux_reg_branches]:
            constant_init(branch[-1], 0, bias=0)

    def forward(
        self, hidden_states: Tensor, references: Sequence[Tensor], query_layout: QueryLayout
    ) -> tuple[Tensor, Tensor]:
        """Predict classes and boxes from every decoder layer.

        Args:
            hidden_states: [num_layers, bs, num_queries_total, dim].
            references: num_layers + 1 tensors [bs, num_queries_total, 4] cxcywh in [0, 1].
            query_layout: division of the query axis.

        Returns:
            Class logits [num_layers, bs, num_queries_total, num_classes] and boxes
            [num_layers, bs, num_queries_total, 4] cxcywh in [0, 1].
        """
        all_logits, all_boxes = [], []
        for lid, (hidden, reference) in enumerate(zip(hidden_states, references)):
            anchor = inverse_sigmoid(reference)
            if query_layout.num_dense == 0:
                logits, delta = self.cls_branches[lid](hidden), self.reg_branches[lid](hidden)
            else:
                sparse, dense = hidden[:, : query_layout.num_sparse], hidden[:, query_layout.num_sparse :]
                logits, delta = self.cls_branches[lid](sparse), self.reg_branches[lid](sparse)
                # [bs, num_queries_total, num_classes]: sparse queries, then dense ones
                logits = torch.cat([logits, self.aux_cls_branches[lid](dense)], dim=1)
                # [bs, num_queries_total, 4]
                delta = torch.cat([delta, self.aux_reg_branches[lid](dense)], dim=1)
            all_logits.append(logits)
            boxes = delta + anchor
            if not (self.float32_boxes or self.training):
                boxes = boxes.to(delta.dtype)
            all_boxes.append(boxes.sigmoid())
        # [num_layers, bs, num_queries_total, num_classes], [num_layers, bs, num_queries_total, 4]
        return torch.stack(all_logits), torch.stack(all_boxes)

    def loss(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        active_masks: list[Tensor],
        query_layout: QueryLayout,
        enc_outputs_class: Tensor,
        enc_outputs_coord: Tensor,
        aux_enc_outputs_class: Tensor,
        aux_enc_outputs_coord: Tensor,
        batch_data_samples: SampleList,
        dn_meta: dict[str, int],
    ) -> dict[str, Tensor]:
        """Compute all loss terms, named as in the official training logs.

        Args:
            hidden_states: as in :meth:`forward`.
            references: as in :meth:`forward`.
            active_masks: per layer [bs, num_matching] bool, the matching queries its loss is taken on.
            query_layout: division of the query axis.
            enc_outputs_class: logits of the selected encoder proposals [bs, num_matching, num_classes].
            enc_outputs_coord: their boxes [bs, num_matching, 4] cxcywh in [0, 1].
            aux_enc_outputs_class: logits of the dense encoder proposals [bs, num_dense, num_classes].
            aux_enc_outputs_coord: their boxes [bs, num_dense, 4] cxcywh in [0, 1].
            batch_data_samples: with ``gt_instances`` and ``img_shape``.
            dn_meta: of mmdet's ``CdnQueryGenerator``.
        """
        gts = [sample.gt_instances for sample in batch_data_samples]
        metas = [sample.metainfo for sample in batch_data_samples]
        logits, boxes = self(hidden_states, references, query_layout)
        # under autocast logits come in half precision, in which a sum over all queries and classes may overflow
        logits, enc_outputs_class = to_float32(logits), to_float32(enc_outputs_class)
        start, stop = query_layout.num_denoising, query_layout.num_sparse

        losses = self._matching_losses(logits[:, :, start:stop], boxes[:, :, start:stop], active_masks, gts, metas)
        losses.update(named("enc_", self.loss_by_feat_single(enc_outputs_class, enc_outputs_coord, gts, metas)))
        denoising = self.loss_dn(logits[:, :, :start], boxes[:, :, :start], gts, metas, dn_meta)
        losses.update(layer_losses("dn_", zip(*denoising)))
        for lid in range(len(logits)):
            dense = self._dense_losses(logits[lid, :, stop:], boxes[lid, :, stop:], gts, metas)
            losses.update({f"{lid}_aux_{name}": value for name, value in dense.items()})
        dense = self._dense_losses(aux_enc_outputs_class, aux_enc_outputs_coord, gts, metas)
        losses.update({f"aux_enc_{name}": value for name, value in dense.items()})
        return losses

    def _matching_losses(
        self, logits: Tensor, boxes: Tensor, active_masks: list[Tensor], gts: InstanceList, metas: list[dict]
    ) -> dict[str, Tensor]:
        """One-to-one losses per layer on the queries that entered it as distinct; shapes [num_layers, bs, n, ...]."""
        per_layer = []
        for layer_logits, layer_boxes, masks in zip(logits, boxes, active_masks):
            active = [places_of(mask) for mask in masks]
            # per image logits [n_i, num_classes] and boxes [n_i, 4] of its active queries
            of_images = [[x[inds] for x, inds in zip(values, active)] for values in (layer_logits, layer_boxes)]
            per_layer.append(self._matching_loss(*of_images, gts, metas))
        return layer_losses("", per_layer)

    def _matching_loss(
        self, logits: list[Tensor], boxes: list[Tensor], gts: InstanceList, metas: list[dict]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """mmdet's ``loss_by_feat_single`` for images with different numbers of queries: lists of [n_i, ...]."""
        labels, label_weights, bbox_targets, bbox_weights, num_pos, num_neg = self.get_targets(
            logits, boxes, gts, metas
        )
        # all images together, N = sum of n_i: [N, num_classes], [N, 4] cxcywh in [0, 1]
        all_logits, all_boxes = torch.cat(logits), torch.cat(boxes)

        cls_factor = num_pos * 1.0 + num_neg * self.bg_cls_weight
        if self.sync_cls_avg_factor:
            cls_factor = reduce_mean(all_logits.new_tensor([cls_factor]))
        # labels and their weights, both [N]
        loss_cls = self.loss_cls(all_logits, torch.cat(labels), torch.cat(label_weights), avg_factor=max(cls_factor, 1))

        box_factor = torch.clamp(reduce_mean(loss_cls.new_tensor([num_pos])), min=1).item()
        targets, weights = torch.cat(bbox_targets), torch.cat(bbox_weights)  # each [N, 4]
        # [N, 4] (w, h, w, h): the IoU loss is taken in pixels, the L1 loss in normalised coordinates
        sizes = torch.cat([image_size(meta, box).expand(len(box), 4) for meta, box in zip(metas, boxes)])
        loss_iou = self.loss_iou(
            bbox_cxcywh_to_xyxy(all_boxes) * sizes, bbox_cxcywh_to_xyxy(targets) * sizes, weights, avg_factor=box_factor
        )
        loss_bbox = self.loss_bbox(all_boxes, targets, weights, avg_factor=box_factor)
        return loss_cls, loss_bbox, loss_iou

    def _dense_losses(
        self, logits: Tensor, boxes: Tensor, gts: InstanceList, metas: list[dict]
    ) -> dict[str, list[Tensor]]:
        """One-to-many losses of dense queries: logits [bs, n, num_classes], boxes [bs, n, 4] cxcywh in [0, 1]."""
        sizes = torch.stack([image_size(meta, boxes) for meta in metas])  # [bs, 1, 4]
        return self.aux_loss_for_dense.loss(logits.sigmoid(), bbox_cxcywh_to_xyxy(boxes) * sizes, gts, metas)

    def predict(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        active_masks: list[Tensor],
        query_layout: QueryLayout,
        batch_data_samples: SampleList,
        rescale: bool = True,
    ) -> InstanceList:
        """Return detections of the last layer's distinct queries; arguments as in :meth:`loss`.

        Args:
            rescale: divide the boxes by ``scale_factor``, back to the original image.

        Returns:
            Per image ``bboxes`` [n, 4] xyxy in pixels, ``scores`` [n] in [0, 1], best first, and ``labels`` [n];
            n is at most ``test_cfg.max_per_img``.
        """
        logits, boxes = self(hidden_states, references, query_layout)
        max_per_img = (self.test_cfg or {}).get("max_per_img")
        return [
            detections(image_logits[active], image_boxes[active], sample.metainfo, max_per_img, rescale)
            for image_logits, image_boxes, active, sample in zip(
                logits[-1], boxes[-1], map(places_of, active_masks[-1]), batch_data_samples
            )
        ]


def build_dense_loss(aux_num_pos: int) -> nn.Module:
    """Build the dense loss with ``aux_num_pos`` positives per object."""
    assigner = dict(type="ddq_port.TopkHungarianAssigner", topk=aux_num_pos)
    return MODELS.build(dict(type="ddq_port.DenseAuxLoss", assigner=assigner))


def image_size(img_meta: dict, like: Tensor) -> Tensor:
    """Return (w, h, w, h) of the unpadded image in pixels, [1, 4], with dtype and device of ``like``."""
    height, width = img_meta["img_shape"][:2]
    return per_axis(width, height, like)


def per_axis(x: float, y: float, like: Tensor) -> Tensor:
    """Return (x, y, x, y), [1, 4], made where ``like`` is: copying four numbers to a GPU would wait for it."""
    numbers = like.new_empty(1, 4)
    numbers[:, 0::2], numbers[:, 1::2] = x, y
    return numbers


def detections(logits: Tensor, boxes: Tensor, img_meta: dict, max_per_img: int | None, rescale: bool) -> InstanceData:
    """Take the best (query, class) pairs of one image.

    Args:
        logits: [n, num_classes].
        boxes: [n, 4] cxcywh in [0, 1].
        img_meta: needs ``img_shape`` (h, w) and, for ``rescale``, ``scale_factor`` (w, h).
        max_per_img: at most so many detections; fewer where there are fewer pairs. None means one per query.
        rescale: divide the boxes by ``scale_factor``.
    """
    scores = logits.sigmoid().flatten()  # [n * num_classes]
    limit = len(logits) if max_per_img is None else max_per_img
    scores, pair = scores.topk(min(limit, scores.numel()))  # each [num_detections]
    height, width = img_meta["img_shape"][:2]
    # [num_detections, 4] xyxy in pixels; an image's size need not be a number of half precision
    bboxes = bbox_cxcywh_to_xyxy(boxes[pair // logits.size(-1)]) * image_size(img_meta, to_float32(boxes))
    bboxes = bboxes.to(boxes.dtype)
    bboxes[:, 0::2].clamp_(min=0, max=width)
    bboxes[:, 1::2].clamp_(min=0, max=height)
    if rescale:
        bboxes = bboxes / per_axis(*img_meta["scale_factor"], bboxes)
    return InstanceData(bboxes=bboxes, scores=scores, labels=pair % logits.size(-1))


_TERMS = ("loss_cls", "loss_bbox", "loss_iou")


def named(prefix: str, values: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{term}": value for term, value in zip(_TERMS, values)}


def layer_losses(prefix: str, per_layer: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
    """Name per-layer losses: the last layer's terms plainly, layer i's with ``d{i}.`` in front."""
    *inner, last = list(per_layer)
    losses = named(prefix, last)
    for lid, values in enumerate(inner):
        losses.update(named(f"d{lid}.{prefix}", values))
    return losses
