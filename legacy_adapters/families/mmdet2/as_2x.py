"""MMDetection 3.x with what it computes otherwise than 2.x undone, to show that nothing else differs.

Give this file to ``--new-adapter``. Each change undoes a deviation of ``docs/deviations.md``, whose number it names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from legacy_adapters.bases.zero_losses import losses_of_no_positives
from legacy_adapters.families.mmdet2.new import MMDet3Detector


class As2xDetector(MMDet3Detector):
    """Build any detector of a config and let it compute as 2.x does."""

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the detector of the config."""
        model = super().build(options, device)
        _divide_by_scale_factors()
        losses_of_no_positives()
        _all_pairs_to_the_nms()
        _masks_of_all_stages()
        for module in model.modules():
            _keep_boxes_without_area(module)
            _has_class_loss(module)
            _rescale_proposals_after_nms(module)
            if getattr(module, "with_bbox", False) and getattr(module, "with_mask", False) and hasattr(module, "predict_mask"):
                _rescale_before_nms(module)
            for assigner in _matching_assigners(module):
                assigner.match_costs = [_cost_of_shares(cost) for cost in assigner.match_costs]
        return model


def _keep_boxes_without_area(module: torch.nn.Module) -> None:
    """D28: no dense head drops boxes without width or height; a head of proposals does in 2.x, too."""
    from mmdet.models.dense_heads import RPNHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    config = getattr(module, "test_cfg", None)
    if isinstance(module, BaseDenseHead) and not isinstance(module, RPNHead) and config and "min_bbox_size" in config:
        config.min_bbox_size = -1


def _has_class_loss(module: torch.nn.Module) -> None:
    """D34: every dense head has a ``loss_cls`` to ask, be it None; without one inference of SSD fails."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    if isinstance(module, BaseDenseHead) and not hasattr(module, "loss_cls"):
        module.loss_cls = None


def _divide_by_scale_factors() -> None:
    """D29: boxes are divided by the scale factors; 3.x multiplies them by the reciprocals, and asks for that here."""
    from mmdet.models.dense_heads import base_dense_head
    from mmdet.models.roi_heads.bbox_heads import bbox_head

    def scale_boxes(boxes: Tensor, reciprocals: list[float]) -> Tensor:
        factors = boxes.new_tensor([1.0 / reciprocal for reciprocal in reciprocals])
        return boxes / factors.repeat((1, boxes.size(-1) // 2))

    base_dense_head.scale_boxes = bbox_head.scale_boxes = scale_boxes


def _all_pairs_to_the_nms() -> None:
    """D35: YOLOv3 gives every pair of a box and a class above the threshold to the NMS, in the order of the boxes."""
    from mmdet.models.dense_heads import yolo_head

    def pairs(scores: Tensor, score_thr: float, topk: int, results: Any = None) -> tuple[Tensor, Tensor, Tensor, Any]:
        above = scores > score_thr
        boxes, labels = above.nonzero(as_tuple=True)
        return scores[above], labels, boxes, results

    yolo_head.filter_scores_and_topk = pairs


def _masks_of_all_stages() -> None:
    """D36: at inference HTC averages the masks of all its stages; 3.x keeps those of the last one only."""
    from mmdet.models.roi_heads.htc_roi_head import HybridTaskCascadeRoIHead as Head

    of_3x = Head._mask_forward

    def forward(self: Any, *args: Any, training: bool = True, **kwargs: Any) -> dict[str, Any]:
        masks: list[Tensor] = []

        def keep(head: torch.nn.Module, given: Any, made: Any) -> None:
            masks.append(made if isinstance(made, Tensor) else made[0])

        hooks = [] if training else [head.register_forward_hook(keep) for head in self.mask_head]
        try:
            result = of_3x(self, *args, training=training, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        return result if training else dict(result, mask_preds=masks)

    Head._mask_forward = forward


def _rescale_before_nms(head: Any) -> None:
    """D31: with masks, too, boxes have the size of the original image before the NMS; masks are pooled from resized ones."""
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


def _rescale_proposals_after_nms(module: torch.nn.Module) -> None:
    """D60: proposals that are a detector's results have the size of the original image behind the NMS only."""
    from mmdet.models.detectors import RPN

    if not isinstance(module, RPN):
        return
    predict = module.bbox_head.predict

    def predicted(features: Any, samples: Any, rescale: bool = False) -> Any:
        found = predict(features, samples, rescale=False)
        for instances, sample in zip(found, samples) if rescale else ():
            factors = instances.bboxes.new_tensor(sample.metainfo["scale_factor"])
            instances.bboxes = instances.bboxes / factors.repeat((1, 2))
        return found

    module.bbox_head.predict = predicted


def _matching_assigners(module: torch.nn.Module) -> list[Any]:
    """Return the assigners of a head of stages that match queries to objects."""
    found = getattr(module, "bbox_assigner", None)
    return [one for one in found if hasattr(one, "match_costs")] if isinstance(found, list) else []


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


ADAPTER = As2xDetector()
