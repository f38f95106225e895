"""Faults in matching, targets and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.losses import DIoULoss
from torch import Tensor

from ddq_port.models.ddq_detr import aux_loss, head
from ddq_port.models.ddq_detr.aux_loss import DenseTargets

from .fault import DETECTOR, INCOMPARABLE, Fault
from .planting import Apply, around, patching, replaced, replacing, result, setting

_AUX = "bbox_head.aux_loss_for_dense"
_MATCH, _DENSE_MATCH = "tap `match`", "tap `dense_match`"
Terms = dict[str, Any]


def _in_units(right: Callable, *args: Any) -> Any:
    """Call with boxes that are never scaled to pixels."""
    with replaced(head, "image_size", lambda meta, like: torch.ones_like(like[..., :4].reshape(-1, 4)[:1])):
        return right(*args)


def _height_first(right: Callable, *args: Any) -> Any:
    size = head.image_size
    with replaced(head, "image_size", lambda meta, like: size(meta, like)[:, [1, 0, 3, 2]]):
        return right(*args)


def _targets(change: Callable[[DenseTargets], DenseTargets]) -> Apply:
    return result(_AUX, "targets", change)


def _background_is_last_class(targets: DenseTargets) -> DenseTargets:
    return DenseTargets(targets.labels.clamp(max=2), targets.label_weights, targets.bboxes, targets.quality)


def _hard_targets(targets: DenseTargets) -> DenseTargets:
    quality = (targets.quality > 0).to(targets.quality)
    return DenseTargets(targets.labels, targets.label_weights, targets.bboxes, quality)


def _one_class_for_encoder(right: Callable, logits: Tensor, boxes: Tensor, gts: list, metas: list) -> Any:
    labels = [gt.labels for gt in gts]
    for gt in gts:
        gt.labels = torch.zeros_like(gt.labels)
    try:
        return right(logits, boxes, gts, metas)
    finally:
        for gt, label in zip(gts, labels):
            gt.labels = label


def _all_are_positive(right: Callable, *args: Any) -> tuple:
    *lists, positive, negative = right(*args)
    return (*lists, positive + negative, negative)


def _boxes_swapped_before_matching(right: Callable, logits: Tensor, boxes: Tensor, *rest: Any) -> tuple:
    return right(logits, boxes.roll(1, 0), *rest)


def _matched_in_order_of_objects(right: Callable, *args: Any) -> Any:
    assigned = right(*args)
    return type(assigned)(assigned.query_inds, assigned.gt_inds.flip(0), assigned.alignments, assigned.ious)


def _terms(change: Callable[[Terms], Terms]) -> Apply:
    return result("bbox_head", "loss", change)


def _without(name: str) -> Callable[[Terms], Terms]:
    return lambda terms: {key: value for key, value in terms.items() if key != name}


def _renamed(name: str, other: str) -> Callable[[Terms], Terms]:
    return lambda terms: {other if key == name else key: value for key, value in terms.items()}


def _scaled(name: str) -> Callable[[Terms], Terms]:
    return lambda terms: {key: value * 0.999 if key == name else value for key, value in terms.items()}


def _total_without_denoising(right: Callable, terms: Terms) -> Any:
    return right({key: value for key, value in terms.items() if "dn_" not in key})


def _sum_of_images(right: Callable, terms: Terms) -> Any:
    total = sum(sum(x) if isinstance(x, list) else x.mean() for x in terms.values())
    return total * 0.5, right(terms)[1]


def _aux_terms_exchanged(terms: Terms) -> Terms:
    return dict(aux_loss_cls=terms["aux_loss_bbox"], aux_loss_bbox=terms["aux_loss_cls"])


def _wrong_order(terms: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    loss_cls, loss_bbox, loss_iou = terms
    return loss_cls, loss_iou, loss_bbox


def _head_inputs(change: Callable[[Terms, Terms], None]) -> Apply:
    """Change the arguments of decoder and head that the detector makes."""

    def changed(dicts: tuple[Terms, Terms]) -> tuple[Terms, Terms]:
        if dicts[1]:
            change(*dicts)
        return dicts

    return result("", "pre_decoder", changed)


def _other_encoder_boxes(decoder: Terms, inputs: Terms) -> None:
    inputs["enc_outputs_coord"] = inputs["enc_outputs_coord"].flip(1)


def _active_one_early(outputs: Terms) -> Terms:
    masks = outputs["active_masks"]
    outputs["active_masks"] = masks[:1] + masks[:-1]
    return outputs


def _normalised_by_count(right: Callable, losses: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    return [loss / len(losses) for loss in losses]


FAULTS = (
    Fault("box_loss_weight", "loss weight", "bbox_head.loss_bbox", setting("bbox_head.loss_bbox", loss_weight=4.999)),
    Fault("iou_loss_weight", "loss weight", "bbox_head.loss_iou", setting("bbox_head.loss_iou", loss_weight=1.0)),
    Fault("dense_box_loss_weight", "loss weight", f"{_AUX}.loss_bbox", setting(f"{_AUX}.loss_bbox", loss_weight=1.0)),
    Fault("background_in_normaliser", "loss normaliser", "bbox_head", setting("bbox_head", bg_cls_weight=0.1),
          says="`avg_factor`"),
    Fault("denoising_normaliser", "loss normaliser", "bbox_head",
          around("bbox_head", "get_dn_targets", _all_are_positive), says="`avg_factor`"),
    Fault("dense_normalised_by_count", "loss normaliser", _AUX,
          patching(aux_loss, "_normalise", _normalised_by_count)),
    Fault("focal_gamma", "gamma, alpha, beta", "bbox_head.loss_cls", setting("bbox_head.loss_cls", gamma=1.5)),
    Fault("focal_alpha", "gamma, alpha, beta", "bbox_head.loss_cls", setting("bbox_head.loss_cls", alpha=0.75)),
    Fault("quality_beta", "gamma, alpha, beta", f"{_AUX}.loss_cls", setting(f"{_AUX}.loss_cls", beta=1.0)),
    Fault("alignment_beta", "gamma, alpha, beta", _AUX, setting(f"{_AUX}.assigner", beta=4)),
    Fault("distance_iou_loss", "other IoU", "bbox_head.loss_iou",
          replacing("bbox_head.loss_iou", lambda: DIoULoss(loss_weight=2.0))),
    Fault("distance_iou_dense_loss", "other IoU", f"{_AUX}.loss_bbox",
          replacing(f"{_AUX}.loss_bbox", lambda: DIoULoss(loss_weight=2.0))),
    Fault("plain_iou_cost", "other IoU", "bbox_head", setting("bbox_head.assigner.match_costs.2", iou_mode="iou"),
          says=_MATCH),
    Fault("class_cost_weight", "cost weight", "bbox_head", setting("bbox_head.assigner.match_costs.0", weight=1.0),
          says=_MATCH),
    Fault("box_cost_weight", "cost weight", _AUX, setting(f"{_AUX}.assigner.reg_cost", weight=4.0),
          says=_DENSE_MATCH),
    Fault("box_cost_on_corners", "cost weight", "bbox_head",
          setting("bbox_head.assigner.match_costs.1", box_format="xyxy"), says=_MATCH),
    Fault("three_positives", "top-k count", _AUX, setting(f"{_AUX}.assigner", topk=3), says=_DENSE_MATCH),
    Fault("matched_on_other_boxes", "wrong targets", "bbox_head",
          around("bbox_head", "_get_targets_single", _boxes_swapped_before_matching), says=_MATCH),
    Fault("one_class_for_encoder", "wrong targets", "bbox_head",
          around("bbox_head", "loss_by_feat_single", _one_class_for_encoder), says=_MATCH),
    Fault("objects_backwards", "wrong targets", _AUX,
          around(f"{_AUX}.assigner", "assign", _matched_in_order_of_objects)),
    Fault("hard_targets", "wrong targets", _AUX, _targets(_hard_targets), says="`target.1`"),
    Fault("background_is_last_class", "label offset", _AUX, _targets(_background_is_last_class), says="`target.0`"),
    Fault("iou_loss_in_unit_boxes", "box units", "bbox_head", around("bbox_head", "_matching_loss", _in_units),
          says="`bbox_head.loss_iou`"),
    Fault("iou_loss_height_first", "wrong image size", "bbox_head",
          around("bbox_head", "_matching_loss", _height_first), says="`bbox_head.loss_iou`"),
    Fault("dense_loss_in_unit_boxes", "box units", "bbox_head", around("bbox_head", "_dense_losses", _in_units)),
    Fault("encoder_boxes_permuted", "dict output", DETECTOR, _head_inputs(_other_encoder_boxes)),
    Fault("active_masks_one_early", "dict output", DETECTOR, result("", "forward_decoder", _active_one_early)),
    Fault("aux_terms_exchanged", "dict output", _AUX, result(_AUX, "loss", _aux_terms_exchanged)),
    Fault("box_and_iou_terms_swapped", "dict output", "bbox_head",
          result("bbox_head", "_matching_loss", _wrong_order), says="loss_bbox"),
    Fault("term_missing", "loss terms", "d1.dn_loss_iou", _terms(_without("d1.dn_loss_iou"))),
    Fault("term_renamed", "loss terms", "enc_loss_cls", _terms(_renamed("enc_loss_cls", "encoder_loss_cls")),
          outcome=INCOMPARABLE),
    Fault("term_scaled", "loss terms", "bbox_head", _terms(_scaled("enc_loss_iou")), says="enc_loss_iou"),
    Fault("total_without_denoising", "total loss", "total", around("", "parse_losses", _total_without_denoising)),
    Fault("total_of_images", "total loss", "total", around("", "parse_losses", _sum_of_images)),
)  # fmt: skip
