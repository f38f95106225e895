"""MMDetection 3.x with what it computes otherwise than 2.x undone, to show that nothing else differs.

Give this file to ``--new-adapter``. Each change undoes a deviation of ``docs/deviations.md``, whose number it names. The
trace tells which were undone, as ``undone`` in its provenance: those that the model at hand has.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from legacy_adapters.bases.zero_losses import losses_of_no_positives
from legacy_adapters.families.mmdet2.new import MMDet3Detector


class As2xDetector(MMDet3Detector):
    """Build any detector of a config and let it compute as 2.x does."""

    _undone: tuple[str, ...] = ()

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the detector of the config."""
        model = super().build(options, device)
        _divide_by_scale_factors()
        losses_of_no_positives()
        of_modules = {
            number for module in model.modules() for number, undo in _OF_MODULES.items() if undo(module)
        }
        self._undone = tuple(sorted({"D29", "D30"} | of_modules))
        return model

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Tell which code ran, and which deviations were undone in it."""
        return dict(super().provenance(options), undone=self._undone)


def _keep_boxes_without_area(module: torch.nn.Module) -> bool:
    """D28: no dense head drops boxes without width or height; heads of proposals do in 2.x, too."""
    from mmdet.models.dense_heads import CascadeRPNHead, GARPNHead, RPNHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    config = getattr(module, "test_cfg", None)
    of_proposals = isinstance(module, (RPNHead, CascadeRPNHead, GARPNHead))
    if not isinstance(module, BaseDenseHead) or of_proposals or not config:
        return False
    drops = config.get("min_bbox_size", -1) >= 0
    if drops:
        config.min_bbox_size = -1
    return drops


def _has_class_loss(module: torch.nn.Module) -> bool:
    """D34: every dense head has a ``loss_cls`` to ask, be it None; without one inference of SSD fails."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    lacks = isinstance(module, BaseDenseHead) and not hasattr(module, "loss_cls")
    if lacks:
        module.loss_cls = None
    return lacks


def _divide_by_scale_factors() -> None:
    """D29: boxes are divided by the scale factors; 3.x multiplies them by the reciprocals, and asks for that here."""
    from mmdet.models.dense_heads import base_dense_head
    from mmdet.models.roi_heads.bbox_heads import bbox_head

    def scale_boxes(boxes: Tensor, reciprocals: list[float]) -> Tensor:
        factors = boxes.new_tensor([1.0 / reciprocal for reciprocal in reciprocals])
        return boxes / factors.repeat((1, boxes.size(-1) // 2))

    base_dense_head.scale_boxes = bbox_head.scale_boxes = scale_boxes


def _all_pairs_to_the_nms(module: torch.nn.Module) -> bool:
    """D35: YOLOv3 gives every pair of a box and a class above the threshold to the NMS, in the order of the boxes."""
    from mmdet.models.dense_heads import yolo_head

    if not isinstance(module, yolo_head.YOLOV3Head):
        return False

    def pairs(scores: Tensor, score_thr: float, topk: int, results: Any = None) -> tuple[Tensor, Tensor, Tensor, Any]:
        above = scores > score_thr
        boxes, labels = above.nonzero(as_tuple=True)
        return scores[above], labels, boxes, results

    yolo_head.filter_scores_and_topk = pairs
    return True


def _masks_of_all_stages(head: torch.nn.Module) -> bool:
    """D36: at inference HTC averages the masks of all its stages; 3.x keeps those of the last one only."""
    from mmdet.models.roi_heads.htc_roi_head import HybridTaskCascadeRoIHead

    if not isinstance(head, HybridTaskCascadeRoIHead) or not head.with_mask:
        return False
    of_3x = head._mask_forward

    def forward(*args: Any, training: bool = True, **kwargs: Any) -> dict[str, Any]:
        masks: list[Tensor] = []

        def keep(stage: torch.nn.Module, given: Any, made: Any) -> None:
            masks.append(made if isinstance(made, Tensor) else made[0])

        hooks = [] if training else [stage.register_forward_hook(keep) for stage in head.mask_head]
        try:
            result = of_3x(*args, training=training, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        return result if training else dict(result, mask_preds=masks)

    head._mask_forward = forward
    return True


def _masks_of_the_last_images_queries(head: Any) -> bool:
    """D61: QueryInst takes the masks of all images from the queries that are chosen in the last one."""
    from mmdet.models.roi_heads import SparseRoIHead

    if not isinstance(head, SparseRoIHead) or not head.with_mask:
        return False
    predict_mask = head.predict_mask

    @functools.wraps(predict_mask)
    def masks(x: Any, batch_img_metas: Any, results_list: Any, rescale: bool = False) -> Any:
        for results in results_list:
            results.topk_inds = results_list[-1].topk_inds
        return predict_mask(x, batch_img_metas, results_list, rescale=rescale)

    head.predict_mask = masks
    return True


def _scores_of_boxes(head: Any) -> bool:
    """D62: the score of a mask stands beside that of its box, and does not take its place."""
    from mmdet.models.roi_heads import MaskScoringRoIHead

    if not isinstance(head, MaskScoringRoIHead):
        return False
    predict_mask = head.predict_mask

    @functools.wraps(predict_mask)
    def masks(x: Any, batch_img_metas: Any, results_list: Any, rescale: bool = False) -> Any:
        scores = [results.scores for results in results_list]
        scored = predict_mask(x, batch_img_metas, results_list, rescale=rescale)
        for results, of_boxes in zip(scored, scores):
            results.mask_scores, results.scores = results.scores, of_boxes
        return scored

    head.predict_mask = masks
    return True


def _rescale_before_nms(head: Any) -> bool:
    """D31: with masks, too, boxes have the size of the original image before the NMS; masks are pooled from resized ones."""
    if not (getattr(head, "with_bbox", False) and getattr(head, "with_mask", False) and hasattr(head, "predict_mask")):
        return False
    predict, predict_bbox, predict_mask, asked = head.predict, head.predict_bbox, head.predict_mask, {}

    def predicted(*args: Any, rescale: bool = False, **kwargs: Any) -> Any:
        asked.update(rescale=rescale)
        return predict(*args, rescale=rescale, **kwargs)

    def boxes(*args: Any, rescale: bool = False, **kwargs: Any) -> Any:
        return predict_bbox(*args, **{**kwargs, **asked})

    parameters = inspect.signature(predict_mask)

    def masks(*args: Any, **kwargs: Any) -> Any:
        told = parameters.bind(*args, **kwargs).arguments  # some heads have more than these
        metas, results = told["batch_img_metas"], told["results_list"]
        if not told.get("rescale"):
            return predict_mask(*args, **kwargs)
        own = [result.bboxes for result in results]
        for result, meta in zip(results, metas):
            result.bboxes = result.bboxes * result.bboxes.new_tensor(meta["scale_factor"]).repeat((1, 2))
        pasted = predict_mask(*args, **kwargs)
        for result, bboxes in zip(pasted, own):
            result.bboxes = bboxes
        return pasted

    head.predict, head.predict_bbox, head.predict_mask = predicted, boxes, masks
    return True


def _rescale_proposals_after_nms(module: torch.nn.Module) -> bool:
    """D60: proposals that are a detector's results have the size of the original image behind the NMS only."""
    from mmdet.models.detectors import RPN

    if not isinstance(module, RPN):
        return False
    predict = module.bbox_head.predict

    def predicted(features: Any, samples: Any, rescale: bool = False) -> Any:
        found = predict(features, samples, rescale=False)
        for instances, sample in zip(found, samples) if rescale else ():
            factors = instances.bboxes.new_tensor(sample.metainfo["scale_factor"])
            instances.bboxes = instances.bboxes / factors.repeat((1, 2))
        return found

    module.bbox_head.predict = predicted
    return True


def _match_shares_of_the_image(module: torch.nn.Module) -> bool:
    """D32: heads of stages that match queries to objects do so by boxes that are shares of the image."""
    held = getattr(module, "bbox_assigner", None)
    assigners = [one for one in held if hasattr(one, "match_costs")] if isinstance(held, list) else []
    for assigner in assigners:
        assigner.match_costs = [_cost_of_shares(cost) for cost in assigner.match_costs]
    return bool(assigners)


def _cost_of_shares(cost: Any) -> Callable[..., Tensor]:
    """D32: boxes are shares of the image in the cost, and go back to pixels for the IoU."""
    from mmdet.models.task_modules.assigners.match_cost import BBoxL1Cost, IoUCost
    from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
    from mmengine.structures import InstanceData

    def costs(pred_instances: Any, gt_instances: Any, img_meta: dict) -> Tensor:
        height, width = img_meta["img_shape"]
        objects = gt_instances.bboxes
        factor = objects.new_tensor([width, height, width, height])[None]
        shares = bbox_xyxy_to_cxcywh(pred_instances.bboxes / factor)
        if isinstance(cost, IoUCost):
            return cost(InstanceData(bboxes=bbox_cxcywh_to_xyxy(shares) * factor), gt_instances, img_meta)
        if cost.box_format == "xywh":
            return torch.cdist(shares, bbox_xyxy_to_cxcywh(objects / factor), p=1) * cost.weight
        return torch.cdist(bbox_cxcywh_to_xyxy(shares), objects / factor, p=1) * cost.weight

    return costs if isinstance(cost, (BBoxL1Cost, IoUCost)) else cost


#: What undoes a deviation in a module that has it, and tells whether it has. What changes the masks of a head comes before
#: what hands resized boxes to that.
_OF_MODULES: Mapping[str, Callable[[Any], bool]] = {
    "D28": _keep_boxes_without_area,
    "D32": _match_shares_of_the_image,
    "D34": _has_class_loss,
    "D35": _all_pairs_to_the_nms,
    "D36": _masks_of_all_stages,
    "D60": _rescale_proposals_after_nms,
    "D61": _masks_of_the_last_images_queries,
    "D62": _scores_of_boxes,
    "D31": _rescale_before_nms,
}


ADAPTER = As2xDetector()
